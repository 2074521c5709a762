// A checkpoint of random weights, to train from nothing.
#pragma once

#include <cstdint>
#include <filesystem>

namespace llmpress {

struct RandomModelJob {
  std::filesystem::path config{};  // a config.json
  std::filesystem::path source{};  // a folder whose tokenizer goes along
  std::filesystem::path output{};
  std::uint64_t seed = 0;
};

// Weights of Linears and embeddings are normal with deviation 0.02 (GPT-2's),
// those that write to the residual stream divided by sqrt(2 layers); gains are
// 1, biases 0. In float32, whole or not at all. Throws Error(kUnsupported) for a
// family with other tensors, or whose Linears lie in shared tensors.
void write_random_model(const RandomModelJob& job);

}  // namespace llmpress
