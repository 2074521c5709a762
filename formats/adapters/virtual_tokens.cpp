#include "formats/adapters/virtual_tokens.h"

#include <algorithm>
#include <cassert>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/typed_tensors.h"
#include "formats/files/json_reader.h"

namespace llmpress {
namespace {

constexpr const char* kTensor = "prompt_embeddings";
constexpr std::uint64_t kMost = std::uint64_t{1} << 31;

// Where a layer's part begins in a row.
std::size_t first_column(const VirtualTokens& tokens, std::size_t layer,
                         PrefixPart part) {
  const std::size_t place = 2 * layer + (part == PrefixPart::kValues ? 1 : 0);
  return place * tokens.width;
}

std::size_t size_at(const JsonView& root, const char* key) {
  const auto size = static_cast<std::size_t>(root.at(key).natural(kMost));
  if (size != 0) return size;
  fail(ErrorCode::kInvalidInput, "{}: found 0, wanted at least 1",
       root.at(key).place());
}

}  // namespace

VirtualTokens read_virtual_tokens(const std::filesystem::path& directory) {
  VirtualTokens tokens{.format = read_adapter_format(directory)};
  assert(tokens.format == AdapterFormat::kPrefix ||
         tokens.format == AdapterFormat::kPrompt);
  const std::filesystem::path config = directory / "adapter_config.json";
  const JsonDocument document(read_file(config), config.string());
  const JsonView root = document.root();
  const std::size_t count = size_at(root, "num_virtual_tokens");
  tokens.layers = size_at(root, "num_layers");
  tokens.heads = size_at(root, "num_attention_heads");
  tokens.width = size_at(root, "token_dim");
  const auto modules = root.find("num_transformer_submodules");
  if (modules && modules->natural(kMost) != 1) {
    modules->unsupported("the adapter is of a model with an encoder");
  }
  const auto reader = open_adapter_tensors(directory);
  const TensorInfo& info = reader->require(kTensor);
  const std::size_t columns = tokens.format == AdapterFormat::kPrefix
                                  ? 2 * tokens.layers * tokens.width
                                  : tokens.width;
  if (info.shape != std::vector{count, columns}) {
    fail(ErrorCode::kInvalidInput, "{}: has shape {}, wanted {} by {}",
         subject_of(info), shape_text(info.shape),
         shape_text(std::vector{count, columns}), config);
  }
  tokens.rows = read_matrix(*reader, kTensor);
  return tokens;
}

void write_virtual_tokens(const std::filesystem::path& directory,
                          const VirtualTokens& tokens,
                          const std::string& base_model,
                          const std::map<std::string, std::string>& files) {
  nlohmann::json config = {
      {"base_model_name_or_path", base_model},
      {"inference_mode", true},
      {"num_attention_heads", tokens.heads},
      {"num_layers", tokens.layers},
      {"num_transformer_submodules", 1},
      {"num_virtual_tokens", tokens.rows.rows()},
      {"peft_type", peft_type_of(tokens.format)},
      {"task_type", "CAUSAL_LM"},
      {"token_dim", tokens.width},
  };
  if (tokens.format == AdapterFormat::kPrefix) {
    config["encoder_hidden_size"] = tokens.width;
    config["prefix_projection"] = false;
  } else {
    config["prompt_tuning_init"] = "RANDOM";
  }
  const NamedTensor rows = rounded_tensor(
      kTensor, DType::kF32, {tokens.rows.rows(), tokens.rows.cols()},
      tokens.rows.data());
  write_adapter_folder(directory, config.dump(2), {&rows, 1}, files);
}

MatrixF prefix_part(const VirtualTokens& tokens, std::size_t layer,
                    PrefixPart part) {
  MatrixF rows(tokens.rows.rows(), tokens.width);
  const std::size_t first = first_column(tokens, layer, part);
  for (std::size_t t = 0; t < rows.rows(); ++t) {
    std::ranges::copy(tokens.rows.row(t).subspan(first, tokens.width),
                      rows.row(t).begin());
  }
  return rows;
}

void put_prefix_part(ConstMatrixView part_rows, std::size_t layer,
                     PrefixPart part, VirtualTokens& tokens) {
  const std::size_t first = first_column(tokens, layer, part);
  for (std::size_t t = 0; t < part_rows.rows(); ++t) {
    std::ranges::copy(part_rows.row(t), tokens.rows.row(t).begin() +
                                            static_cast<std::ptrdiff_t>(first));
  }
}

}  // namespace llmpress
