// One GGUF file of a model whose tensors come under the names of a Hugging Face
// folder (gguf_architecture.h); metadata is made of config.json and the
// tokenizer's files. Vectors become F32, as llama.cpp wants them. Provenance and
// recipe are kept as strings (llmpress.*). The tensors are spooled to disk as
// they come and written when config.json is known, one at a time.
#pragma once

#include <memory>

#include "formats/checkpoints/artifact_sink.h"
#include "formats/containers/gguf.h"

namespace llmpress {

inline constexpr std::string_view kGgufVersionKey = "llmpress.version";

std::unique_ptr<ArtifactSink> make_gguf_sink(const ArtifactOptions& options);

// Metadata of a model: what config.json and the tokenizer say, and the vectors
// that stand for settings. Throws Error(kUnsupported) for what GGUF cannot say.
struct GgufDescription {
  GgufMetadata metadata{};
  std::vector<std::pair<std::string, std::vector<float>>> tensors{};
};
GgufDescription describe_as_gguf(
    const std::map<std::string, std::string>& files, const std::string& origin);

}  // namespace llmpress
