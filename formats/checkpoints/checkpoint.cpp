#include "formats/checkpoints/checkpoint.h"

#include <array>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/config_check.h"
#include "formats/checkpoints/config_reader.h"
#include "formats/checkpoints/expert_stacks.h"
#include "formats/checkpoints/tied_head.h"
#include "formats/consolidated/consolidated.h"
#include "formats/containers/gguf.h"
#include "formats/containers/hdf5_file.h"
#include "formats/containers/torch_file.h"
#include "formats/files/foreign_file.h"
#include "formats/files/mapped_file.h"
#include "formats/gguf/gguf_checkpoint.h"
#include "formats/linears/dense_linear.h"
#include "formats/linears/linear_form.h"
#include "formats/linears/quantization_config.h"
#include "formats/llama2c/llama2c_file.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class ModelCheckpoint : public Checkpoint {
 public:
  ModelCheckpoint(fs::path path, std::unique_ptr<TensorReader> reader,
                  std::string config_json, std::string_view container)
      : path_(std::move(path)),
        reader_(std::move(reader)),
        config_json_(std::move(config_json)) {
    const std::string where = config_place(path_.string());
    notes_ = check_config(config_json_, where);
    quantization_ = parse_quantization_config(config_json_, where);
    for (std::string& note : quantization_.notes(where)) {
      notes_.push_back(std::move(note));
    }
    format_ = quantization_.method.empty() || container == "hdf5"
                  ? container
                  : quantization_.method;
    unstack_experts(reader_, config_json_, where);
    resolve_tied_head(reader_, config_json_, notes_, where);
  }

  const fs::path& path() const override { return path_; }
  const TensorReader& tensors() const override { return *reader_; }
  const std::string& config_json() const override { return config_json_; }
  std::string_view format() const override { return format_; }

  bool has_linear(std::string_view name) const override {
    return find_linear_form(stored(name)) != nullptr;
  }

  const TensorInfo* plain_weight(std::string_view name) const override {
    const StoredLinear linear = stored(name);
    const LinearForm* const form = find_linear_form(linear);
    const bool plain = form != nullptr && form->matches == is_dense_linear;
    return plain ? linear.find(".weight") : nullptr;
  }

  LinearWeights read_linear(std::string_view name) const override {
    return llmpress::read_linear(stored(name), path_.string());
  }

  LinearRows read_linear_rows(std::string_view name) const override {
    return llmpress::read_linear_rows(stored(name), path_.string());
  }

  LinearPart read_linear_part(std::string_view name,
                              const RowChoice& choice) const override {
    return llmpress::read_linear_part(stored(name), path_.string(), choice);
  }

  std::optional<DescribedLinear> describe_linear(
      std::string_view name) const override {
    const bool own = quantization_.method.empty() ||
                     quantization_.method == "compressed-tensors";
    if (!own) return std::nullopt;
    return DescribedLinear{quantization_.scheme_of(name),
                           quantization_.extension_of(name)};
  }

  std::string describe_absence(std::string_view name) const override {
    return llmpress::describe_absence(stored(name));
  }

  std::optional<KvScheme> kv_scheme(std::string_view name) const override {
    if (!quantization_.kv_cache) return std::nullopt;
    return read_kv_scheme(*reader_, std::string(name), *quantization_.kv_cache);
  }

  std::vector<std::string> notes() const override { return notes_; }

 private:
  StoredLinear stored(std::string_view name) const {
    return {*reader_,
            std::string(name),
            quantization_.scheme_of(name),
            quantization_.extension_of(name),
            quantization_.int8_threshold,
            quantization_.method};
  }

  fs::path path_;
  std::unique_ptr<TensorReader> reader_;
  std::string config_json_;
  QuantizationConfig quantization_{};
  std::string format_{};
  std::vector<std::string> notes_{};
};

// config.json of a quantized model whose description an older tool (AutoGPTQ,
// AutoAWQ) wrote beside it, with that description. Throws if it is of a tool that
// is not read.
std::string with_side_file(const fs::path& folder, std::string config_json) {
  for (const char* key : {"\"quantization_config\"", "\"quantization\""}) {
    if (config_json.find(key) != std::string::npos) return config_json;
  }
  std::error_code ignored;
  if (fs::exists(folder / "hf_quant_config.json", ignored)) {
    fail(ErrorCode::kUnsupported,
         "{}: is a ModelOpt checkpoint, which is not read; give the model that "
         "it was made from",
         folder / "hf_quant_config.json");
  }
  struct SideFile {
    const char *name, *method;
  };
  constexpr std::array<SideFile, 2> kSideFiles{
      {{"quantize_config.json", "gptq"}, {"quant_config.json", "awq"}}};
  for (const SideFile& file : kSideFiles) {
    if (!fs::exists(folder / file.name, ignored)) continue;
    return with_described_quantization(config_json, file.method,
                                       read_file(folder / file.name),
                                       (folder / file.name).string());
  }
  return config_json;
}

}  // namespace

LinearRows Checkpoint::read_linear_rows(std::string_view name) const {
  return rows_of_linear(read_linear(name));
}

LinearPart Checkpoint::read_linear_part(std::string_view name,
                                        const RowChoice& choice) const {
  return take_part(read_linear(name), choice);
}

std::string Checkpoint::describe_absence(std::string_view name) const {
  return formatted("'{}.weight' is missing", name);
}

std::unique_ptr<Checkpoint> open_checkpoint(const fs::path& path) {
  std::error_code ignored;
  if (!path_exists(path)) {
    fail(ErrorCode::kIo, "{}: no such file or directory", path);
  }
  if (fs::is_directory(path, ignored)) {
    const fs::path config = path / "config.json";
    if (!path_exists(config)) {
      if (is_consolidated(path)) {
        auto [reader, text] = open_consolidated(path);
        return std::make_unique<ModelCheckpoint>(
            path, std::move(reader), std::move(text), "consolidated");
      }
      if (const auto gguf = find_gguf(path)) return open_gguf_checkpoint(*gguf);
      fail(ErrorCode::kInvalidInput, "{}: not a model: it has no config.json",
           path);
    }
    std::string text = with_side_file(path, read_file(config));
    return std::make_unique<ModelCheckpoint>(path, open_tensors(path),
                                             std::move(text), "huggingface");
  }
  if (is_hdf5_file(path)) {
    std::unique_ptr<TensorReader> reader = open_hdf5_tensors(path);
    const auto config = reader->metadata().find("config.json");
    if (config == reader->metadata().end()) {
      fail(ErrorCode::kInvalidInput,
           "{}: not a model: it has no config.json attribute", path);
    }
    std::string text = config->second;
    return std::make_unique<ModelCheckpoint>(path, std::move(reader),
                                             std::move(text), "hdf5");
  }
  if (is_gguf_file(path)) return open_gguf_checkpoint(path);
  if (is_llama2c_file(path)) {
    auto [reader, text] = open_llama2c(path);
    return std::make_unique<ModelCheckpoint>(path, std::move(reader),
                                             std::move(text), "llama2.c");
  }
  if (path.extension() == ".safetensors" || is_torch_file(path)) {
    fail(ErrorCode::kUnsupported,
         "{}: is a file of tensors; give the folder that holds it and its "
         "config.json",
         path);
  }
  const std::string foreign = describe_foreign(path);
  fail(ErrorCode::kUnsupported, "{}{}", path,
       foreign.empty()
           ? ": neither a model folder nor a GGUF, llama2.c or HDF5 file"
           : ": is " + foreign);
}

}  // namespace llmpress
