// What surgery asks of a block, derived from its program: who reads and writes
// the residual stream, and which rows and columns of its Linears go together.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "compress/model/architecture.h"

namespace llmpress {

// Linears that read one norm of the stream, and a Linear that adds to it.
struct StreamReader {
  std::size_t norm = 0;                // index into BlockSpec::norms
  std::vector<std::size_t> linears{};  // indices into BlockSpec::linears
  std::size_t stage = 0;
};
struct StreamFacts {
  std::vector<StreamReader> readers{};  // in execution order
  std::vector<std::size_t> writers{};   // Linears, likewise
  bool routed = false;                  // some of them are experts
};

// Experts read and write it as other Linears do. Throws Error(kUnsupported) with
// the reason if the stream is read other than by Linears behind norms, or
// changed other than by adding what Linears give, times a factor.
StreamFacts stream_facts(const BlockSpec& block);

// Stages [first, last] after which the stream has changed: an attention and an
// MLP one after the other, or both at once in a parallel block.
struct StreamStep {
  std::size_t first = 0, last = 0;  // indices into BlockSpec::stages
};
std::vector<StreamStep> stream_steps(const BlockSpec& block);

// Rows or columns of a Linear that belong to units: unit u has the indices
// [u * width, (u + 1) * width) of `index`.
enum class WeightAxis { kRows, kColumns };
struct UnitPart {
  std::size_t linear = 0;
  WeightAxis axis = WeightAxis::kRows;
  std::size_t width = 1;
  std::vector<std::size_t> index{};
};
// Units that can be taken out of a block without touching the others.
struct BlockUnits {
  std::size_t count = 0;
  std::vector<UnitPart> parts{};
};

// Channels of the MLP: rows of the Linears that give them, columns of the one
// that reads them. Throws Error(kUnsupported) for a block without one dense
// MLP.
BlockUnits ffn_units(const BlockSpec& block);
// Key/value heads with the query heads that read them: rows of q, k, v, columns
// of o. Throws Error(kUnsupported) for a block without one such attention.
BlockUnits head_units(const BlockSpec& block);

// An attention module with the keys and values that it attends to.
struct KeyValueModule {
  std::string name{};    // within the block: "self_attn"
  std::size_t slot = 0;  // of its cache
  bool latent = false;   // values are narrower than keys: rebuilt from latents
  bool shared = false;   // those of another layer
};
std::vector<KeyValueModule> key_value_modules(const BlockSpec& block);

// A mixture of experts by its Linears.
struct ExpertUnits {
  const RouteOp* route = nullptr;  // of the block
  std::size_t router = 0;          // the Linear that gives the logits
  // Of each expert, in execution order; the last gives what is summed.
  std::vector<std::vector<std::size_t>> linears{};  // [experts]
  bool weighed = false;  // the weight is on what goes in, see CombineOp
};
// Nothing for a block without experts. Throws Error(kUnsupported) for one whose
// logits or sums are not what Linears give.
std::optional<ExpertUnits> expert_units(const BlockSpec& block);
// The routing of the first block that has experts; null: none has.
const RouteOp* first_route(const Architecture& arch);

// The attention of a block by its Linears, each of its own (not fused).
struct AttentionLinears {
  const AttentionOp* attention = nullptr;  // of the block
  std::size_t q = 0, k = 0, v = 0, o = 0;
  bool normed = false;  // queries and keys pass norms
};
AttentionLinears attention_linears(const BlockSpec& block);

// Whether v reaches o through nothing but the mixing of attention, so that both
// may be turned head by head; and the Linears.
struct ValuePath {
  UnitPart v{}, o{};
};
std::vector<ValuePath> value_paths(const BlockSpec& block);

}  // namespace llmpress
