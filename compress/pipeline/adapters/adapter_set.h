// PEFT adapters as parts of the modules of one model: read, and checked against
// the model before any of them is used, so that an adapter is carried out whole
// or refused with its path, the module and the reason.
//
// A module is a Linear of a block, the embedding, the head or a norm. Factors
// (LoRA, rsLoRA, DoRA) belong to the first three; any of them may be replaced
// as a whole (modules_to_save). Sparse differences and bottlenecks belong to
// Linears of blocks.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "compress/model/architecture.h"
#include "formats/adapters/peft_adapter.h"
#include "formats/checkpoints/checkpoint.h"
#include "lora/lora_delta.h"

namespace llmpress {

struct WeightedAdapter {
  std::filesystem::path path{};
  double weight = 1;
};

// What one adapter does to one module.
struct AdapterPart {
  std::shared_ptr<const PeftModule> module{};
  double weight = 1;
  std::string adapter{};  // its path, for messages
};

enum class ModulePlace { kLinear, kEmbedding, kHead, kNorm };

struct AdaptedModule {
  std::string name{};  // "model.layers.0.self_attn.q_proj"
  ModulePlace place = ModulePlace::kLinear;
  std::vector<AdapterPart> parts{};  // in the order of the adapters

  bool has_factors() const;
  bool runs_beside() const;  // factors, a difference or a bottleneck
  bool has_dora() const;
  bool replaces() const;  // weight or bias, by modules_to_save
  bool changes_bias() const;
};

struct AdapterSet {
  std::vector<AdaptedModule> modules{};  // by name
  std::vector<std::string> notes{};
};

// Throws Error(kUnsupported) naming the adapter for tokens before the text,
// which belong to no module; as its reader does, and kInvalidInput if an adapter
// names a module that the model does not have, or one of another shape, if two
// replace the same tensor, or a replacement has a weight other than 1;
// kUnsupported for factors on a norm.
AdapterSet read_adapters(const Checkpoint& checkpoint, const Architecture& arch,
                         const std::vector<WeightedAdapter>& adapters);

// The factors of a part as lora/ takes them.
LoraDelta delta_of(const PeftModule& module);

// Error(code) that names the adapter and the module.
[[noreturn]] void refuse_part(const AdapterPart& part,
                              const std::string& module,
                              const std::string& why);

}  // namespace llmpress
