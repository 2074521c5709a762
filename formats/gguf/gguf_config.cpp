// Metadata to config.json.
#include <algorithm>
#include <cmath>

#include "compress/core/formatted.h"
#include "compress/core/ggml/ggml_block.h"
#include "formats/gguf/gguf_keys.h"
#include "formats/gguf/gguf_model.h"

namespace llmpress {

std::string GgufReading::key(std::string_view name) const {
  return std::string(architecture) + "." + std::string(name);
}

std::optional<std::size_t> GgufReading::size(std::string_view name) const {
  return file.metadata().size(key(name));
}

std::size_t GgufReading::require_size(std::string_view name) const {
  const auto found = size(name);
  if (!found) {
    fail(ErrorCode::kInvalidInput, "{}: metadata '{}' is missing",
         file.metadata().origin(), key(name));
  }
  return *found;
}

std::optional<double> GgufReading::number(std::string_view name) const {
  return file.metadata().number(key(name));
}

std::optional<bool> GgufReading::flag(std::string_view name) const {
  return file.metadata().flag(key(name));
}

bool GgufReading::has(std::string_view tensor) const {
  return file.find(tensor) != nullptr;
}

std::vector<float> GgufReading::vector(std::string_view tensor) const {
  const GgufTensor* const found = file.find(tensor);
  if (found == nullptr || found->shape.size() != 1 ||
      found->type != GgmlType::kF32) {
    fail(ErrorCode::kInvalidInput, "{}: tensor '{}': wanted a vector of f32",
         file.metadata().origin(), tensor);
  }
  std::vector<float> values(found->shape[0]);
  decode_ggml(found->type, file.read(*found).bytes, values);
  return values;
}

namespace {

void read_keys(const GgufReading& in, const GgufArchitecture& architecture,
               JsonFields& out) {
  for (const GgufKey& row : architecture.keys) {
    if (row.real) {
      if (const auto value = in.number(row.gguf)) {
        out[std::string(row.ours)] = json_number(*value);
      } else if (!row.absent) {
        (void)in.require_size(row.gguf);  // says that it is missing
      }
      continue;
    }
    const auto value = in.size(row.gguf);
    if (value) {
      out[std::string(row.ours)] = formatted("{}", *value);
    } else if (!row.absent) {
      (void)in.require_size(row.gguf);
    }
  }
}

void read_ends(const GgufReading& in, JsonFields& out) {
  const GgufTensor* const embedding = in.file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    fail(ErrorCode::kInvalidInput, "{}: tensor 'token_embd.weight' is missing",
         in.file.metadata().origin());
  }
  out["vocab_size"] = formatted("{}", embedding->shape[0]);
  out["tie_word_embeddings"] = in.has("output.weight") ? "false" : "true";
  const GgufMetadata& m = in.file.metadata();
  for (const char* id : {"bos_token_id", "eos_token_id"}) {
    const auto value = m.size("tokenizer.ggml." + std::string(id));
    if (value) out[id] = formatted("{}", *value);
  }
}

// The type that most of the model's numbers have, of those that have a name in
// torch.
std::string dtype_of(const GgufFile& file) {
  const GgufTensor* const embedding = file.find("token_embd.weight");
  if (embedding->type == GgmlType::kBF16) return "\"bfloat16\"";
  return embedding->type == GgmlType::kF32 ? "\"float32\"" : "\"float16\"";
}

}  // namespace

std::string gguf_config_json(const GgufFile& file,
                             const GgufArchitecture& architecture) {
  const GgufReading in{.file = file, .architecture = architecture.name};
  JsonFields fields{
      {"architectures", "[" + json_text(architecture.hf_class) + "]"},
      {"model_type", json_text(architecture.model_type)}};
  read_ends(in, fields);
  read_keys(in, architecture, fields);
  architecture.read(in, fields);
  fields["torch_dtype"] = dtype_of(file);
  std::string text = "{\n";
  for (const auto& [key, value] : fields) {
    text += (text.size() > 2 ? ",\n  " : "  ") + json_text(key) + ": " + value;
  }
  return text + "\n}\n";
}

}  // namespace llmpress
