#include "formats/checkpoint.h"

#include <utility>

#include "compress/core/error.h"
#include "formats/artifact_writer.h"
#include "formats/dense_linear.h"
#include "formats/hdf5_file.h"
#include "formats/linear_form.h"
#include "formats/mapped_file.h"
#include "formats/quantization_config.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class ModelCheckpoint : public Checkpoint {
 public:
  ModelCheckpoint(fs::path path, std::unique_ptr<TensorReader> reader,
                  std::string config_json, std::string_view container)
      : path_(std::move(path)),
        reader_(std::move(reader)),
        config_json_(std::move(config_json)),
        quantization_(parse_quantization_config(config_json_, path_.string())),
        format_(quantization_.method.empty() || container == "hdf5"
                    ? container
                    : quantization_.method) {}

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

 private:
  StoredLinear stored(std::string_view name) const {
    return {*reader_, std::string(name), quantization_.scheme_of(name),
            quantization_.extension_of(name), quantization_.int8_threshold};
  }

  fs::path path_;
  std::unique_ptr<TensorReader> reader_;
  std::string config_json_;
  QuantizationConfig quantization_;
  std::string format_;
};

}  // namespace

std::unique_ptr<Checkpoint> open_checkpoint(const fs::path& path) {
  std::error_code ignored;
  if (!path_exists(path)) {
    throw Error(ErrorCode::kIo, path.string() + ": no such file or directory");
  }
  if (fs::is_directory(path, ignored)) {
    const fs::path config = path / "config.json";
    if (!path_exists(config)) {
      throw Error(ErrorCode::kInvalidInput,
                  path.string() + ": not a model: it has no config.json");
    }
    return std::make_unique<ModelCheckpoint>(path, open_tensors(path),
                                             read_file(config), "huggingface");
  }
  if (is_hdf5_file(path)) {
    std::unique_ptr<TensorReader> reader = open_hdf5_tensors(path);
    const auto config = reader->metadata().find("config.json");
    if (config == reader->metadata().end()) {
      throw Error(
          ErrorCode::kInvalidInput,
          path.string() + ": not a model: it has no config.json attribute");
    }
    std::string text = config->second;
    return std::make_unique<ModelCheckpoint>(path, std::move(reader),
                                             std::move(text), "hdf5");
  }
  throw Error(ErrorCode::kUnsupported,
              path.string() + ": neither a model folder nor an HDF5 file");
}

}  // namespace llmpress
