// What can be known of a model from its files, before anything is run: whether
// everything is there in the right shapes, and how large it is.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

// Sizes of a model, over what is stored (tied tensors once).
struct ModelSize {
  std::size_t weight_bytes = 0;  // all tensors
  std::size_t weights = 0;       // all elements, by their logical shapes
  std::size_t linear_bytes = 0;  // weights of the Linears of the blocks
  std::size_t linear_weights = 0;
  double bits_per_weight() const;  // 8 * weight_bytes / weights
  double linear_bits_per_weight() const;
};

// From the files alone. Codes, scales, zeros, indices and biases count; what
// only describes them (a packed weight's shape, a quantizer's state in JSON)
// and buffers that are no weights (rotary frequencies) do not. Dense weights
// are not read; packed ones are, one at a time.
ModelSize measure_model(const Checkpoint& checkpoint, const Architecture& arch);

// Whether packed Linears are read to judge them, or left to who reads all of
// them next.
enum class PackedLinears { kRead, kReadLater };

// What is missing or misshapen in the checkpoint for this architecture, one
// sentence each. Dense weights are judged by their headers.
std::vector<std::string> model_problems(
    const Checkpoint& checkpoint, const Architecture& arch,
    PackedLinears packed = PackedLinears::kRead);

// Throws Error(kInvalidInput) that lists them, if there are any.
void check_model(const Checkpoint& checkpoint, const Architecture& arch,
                 PackedLinears packed = PackedLinears::kRead);

// Throws Error(kInvalidInput) if the tokenizer has ids that the embedding does
// not. `origin` names the tokenizer.
void check_tokenizer(const Tokenizer& tokenizer, const Architecture& arch,
                     const std::string& origin);

// Checkpoint::plain_weight().
const TensorInfo* dense_matrix(const Checkpoint& checkpoint,
                               const std::string& name);

}  // namespace llmpress
