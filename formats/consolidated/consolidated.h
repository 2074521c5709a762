// The form in which Meta and Mistral release models themselves: a folder with
// params.json and
//
//   consolidated.safetensors, or consolidated.safetensors.index.json and shards
//   consolidated.00.pth, consolidated.01.pth, ...     one a GPU of its training
//
// Tensors are "layers.0.attention.wq.weight" and so on; they are given under
// Hugging Face's names. Coordinates of queries and keys that turn together lie
// side by side here and half a head apart there, so that rows of wq and wk
// change places. Each .pth has a part of a matrix: some of its rows (wq, wk, wv,
// w1, w3, output), some of its columns (wo, w2), either (tok_embeddings), or
// all of it (norms).
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "formats/containers/tensor_io.h"

namespace llmpress {

struct DescribedTensors {
  std::unique_ptr<TensorReader> reader;
  std::string config_json{};
};

// Whether the folder has a params.json and no config.json.
bool is_consolidated(const std::filesystem::path& folder);

// Throws Error(kIo) if there are no weights, kCorruptFile for parts that do not
// fit together, kUnsupported naming the tensor or key for what is not known.
DescribedTensors open_consolidated(const std::filesystem::path& folder);

}  // namespace llmpress
