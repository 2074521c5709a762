// Reading the weights of one block.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "compress/core/packed/row_source.h"
#include "compress/core/packed_weight.h"
#include "compress/model/architecture.h"
#include "compress/model/norm_weights.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// The weights of one block as they are stored.
struct BlockWeights {
  std::vector<LinearWeights> linears{};          // [BlockSpec::linears]
  std::map<std::string, NormWeights> norms{};    // by NormSpec::name
  std::vector<std::vector<float>> parameters{};  // [BlockSpec::parameters]
  std::optional<KvScheme> kv_scheme{};  // how keys and values are rounded
};

// Throws Error(kInvalidInput) naming the first missing, misshapen or non-finite
// tensor, or a bias that config.json does not speak of (unless it is zero).
BlockWeights read_block(const Checkpoint& checkpoint, const Architecture& arch,
                        std::size_t layer);
// Linears as add_block() writes them without a source: each by its own name.
std::vector<LinearWeights> read_written_linears(const Checkpoint& checkpoint,
                                                const Architecture& arch,
                                                std::size_t layer);
// read_block() without Linears.
BlockWeights read_block_rest(const Checkpoint& checkpoint,
                             const Architecture& arch, std::size_t layer);
// Its parts.
std::map<std::string, NormWeights> read_block_norms(
    const Checkpoint& checkpoint, const Architecture& arch, std::size_t layer);
std::vector<std::vector<float>> read_block_parameters(
    const Checkpoint& checkpoint, const Architecture& arch, std::size_t layer);

// `bias`: whether it must be there.
NormWeights read_norm(const Checkpoint& checkpoint, const std::string& name,
                      std::size_t width, bool bias, float offset = 0);

// The tensor in which a Linear lies as its LinearStorage says; nullptr if it
// has a tensor, or packed tensors, of its own. A transposed one has the name
// that a packed weight's codes may have too: it counts while its numbers are
// plain.
const TensorInfo* shared_tensor(const Checkpoint& checkpoint,
                                const std::string& block_name,
                                const LinearSpec& spec);

// A Linear of a block as it is stored, wherever it lies (LinearStorage).
LinearWeights read_block_linear(const Checkpoint& checkpoint,
                                const Architecture& arch, std::size_t layer,
                                std::size_t linear);
// Some of its rows (Checkpoint::read_linear_part()).
LinearPart read_block_linear_part(const Checkpoint& checkpoint,
                                  const Architecture& arch, std::size_t layer,
                                  std::size_t linear, const RowChoice& choice);
// The same some rows at a time (Checkpoint::read_linear_rows()).
LinearRows read_block_linear_rows(const Checkpoint& checkpoint,
                                  const Architecture& arch, std::size_t layer,
                                  std::size_t linear);

}  // namespace llmpress
