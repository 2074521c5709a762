// Random checkpoints of well-known shapes, so that anybody can repeat a table of
// speeds without a download.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "compress/core/dtype.h"
#include "compress/core/parallel.h"

namespace llmpress {

// A shape by name: "llama-1.1b".
struct ModelShape {
  std::string_view name;
  std::string_view summary;  // "TinyLlama-1.1B"
  std::string_view config;   // config.json
};
std::span<const ModelShape> model_shapes();
// Throws Error(kInvalidArgument) with the names that there are.
const ModelShape& find_shape(std::string_view name);

struct SyntheticModelJob {
  std::string like{};
  std::filesystem::path output{};                     // a folder
  std::optional<std::size_t> layers{}, vocabulary{};  // not the shape's own
  DType dtype = DType::kBF16;
  std::uint64_t seed = 0;
};

// config.json of the job's shape with its layers and dtype.
std::string synthetic_config(const SyntheticModelJob& job);

// Writes weights, config.json and a tokenizer: octets are the first 256 tokens
// of its vocabulary, the others stand for nothing.
void write_synthetic_model(const SyntheticModelJob& job, ThreadPool& pool);

}  // namespace llmpress
