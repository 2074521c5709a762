// Rows of the table of architectures (gguf_architecture.h): decoders of Qwen's
// vision-language models, without what sees.
#include <array>

#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"
#include "formats/gguf/gguf_sections.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

constexpr auto kQwen2Vl = joined(kEnds, kNorms, kAttention, kMlp);
constexpr auto kQwen3Vl = joined(kEnds, kNorms, kAttention, kHeadNorms, kMlp);
constexpr auto kKeys = joined(kSizes, kRms);
constexpr auto kQwen2VlKeys = joined(kSizes, kRmsOfOlmo);

void read_vision(const GgufReading& in, JsonFields& out) {
  read_qwen(in, out);
  if (in.architecture == "qwen2vl") out.erase("attention_bias");
  read_gguf_sections(in, out);
}

void write_qwen2_vl(const GgufWriting& out) {
  require_gguf_square_heads(out);
  write_qwen(out);
  write_gguf_sections(out, GgufSections::kInTurn);
}

void write_qwen3_vl(const GgufWriting& out) {
  write_qwen(out);
  write_gguf_sections(out, GgufSections::kInterleaved);
}

constexpr GgufArchitecture qwen2_vl(std::string_view model_type) {
  return {.name = "qwen2vl",
          .model_type = model_type,
          .tensors = kQwen2Vl,
          .keys = kQwen2VlKeys,
          .read = read_vision,
          .write = write_qwen2_vl,
          .rope_theta = 1e6,
          .hf_class = "Qwen2_5_VLForConditionalGeneration"};
}

constexpr std::array kArchitectures{
    qwen2_vl("qwen2_5_vl_text"),
    qwen2_vl("qwen2_5_vl"),
    qwen2_vl("qwen2_vl_text"),
    qwen2_vl("qwen2_vl"),
    GgufArchitecture{.name = "qwen3vl",
                     .model_type = "qwen3_vl_text",
                     .tensors = kQwen3Vl,
                     .keys = kKeys,
                     .read = read_vision,
                     .write = write_qwen3_vl,
                     .head_dim = 128,
                     .hf_class = "Qwen3VLForConditionalGeneration"},
};

}  // namespace

std::span<const GgufArchitecture> vision_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress
