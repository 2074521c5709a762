// A checkpoint of random weights, to train from nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "compress/core/dtype.h"
#include "compress/core/parallel.h"

namespace llmpress {

struct RandomModelJob {
  std::filesystem::path config{};  // a config.json
  std::string config_json{};       // or its content
  std::filesystem::path source{};  // a folder whose tokenizer goes along
  std::filesystem::path output{};
  std::uint64_t seed = 0;
  DType dtype = DType::kF32;
  // With threads every row has a stream of its own, of sums of four uniform
  // numbers instead of normal ones: for models that nobody means to train.
  ThreadPool* pool = nullptr;
  std::map<std::string, std::string> files{};  // by name, beside the model
};

// Weights of Linears and embeddings are normal with deviation 0.02 (GPT-2's),
// those that write to the residual stream divided by sqrt(2 layers); gains are
// 1, biases 0. Whole or not at all. Throws Error(kUnsupported) for a
// family with other tensors, or whose Linears lie in shared tensors.
void write_random_model(const RandomModelJob& job);

}  // namespace llmpress
