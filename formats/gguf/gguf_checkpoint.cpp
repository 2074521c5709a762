#include "formats/gguf/gguf_checkpoint.h"

#include <algorithm>
#include <vector>

#include "compress/core/formatted.h"
#include "formats/checkpoints/config_check.h"
#include "formats/gguf/gguf_model.h"
#include "formats/gguf/gguf_tokenizer.h"
#include "formats/linears/dense_linear.h"
#include "formats/linears/linear_form.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class GgufCheckpoint : public Checkpoint {
 public:
  explicit GgufCheckpoint(fs::path path)
      : path_(std::move(path)), model_(GgufFile::open(path_)) {}

  const fs::path& path() const override { return path_; }
  const TensorReader& tensors() const override { return model_; }
  const std::string& config_json() const override {
    return model_.config_json();
  }
  std::string_view format() const override { return "gguf"; }

  bool has_linear(std::string_view name) const override {
    return model_.find_blocks(name) != nullptr || is_dense_linear(stored(name));
  }

  const TensorInfo* plain_weight(std::string_view name) const override {
    const StoredLinear linear = stored(name);
    return is_dense_linear(linear) ? linear.find(".weight") : nullptr;
  }

  LinearWeights read_linear(std::string_view name) const override {
    const GgufView* const view = model_.find_blocks(name);
    if (view == nullptr) {
      return llmpress::read_linear(stored(name), path_.string());
    }
    LinearWeights linear{.weight = model_.read_blocks(*view)};
    const std::string module(name);
    check(linear.weight, path_.string() + ": Linear '" + module + "'");
    if (model_.find(module + ".bias") != nullptr) {
      linear.bias = read_vector(model_, module + ".bias", view->rows);
    }
    return linear;
  }

  std::string describe_absence(std::string_view name) const override {
    return llmpress::describe_absence(stored(name));
  }

 private:
  StoredLinear stored(std::string_view name) const {
    static const LinearScheme kScheme{};
    static const LinearExtension kExtension{};
    return {model_, std::string(name), kScheme, kExtension};
  }

  fs::path path_;
  GgufModel model_;
};

}  // namespace

std::unique_ptr<Checkpoint> open_gguf_checkpoint(const fs::path& path) {
  return std::make_unique<GgufCheckpoint>(path);
}

std::optional<fs::path> find_gguf(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const std::size_t of = name.rfind("-of-");
    const bool later = of != std::string::npos && of > 6 &&
                       name.substr(of - 6, 6) != "-00001" &&
                       name.size() == of + 4 + 5 + 5;
    if (name.ends_with(".gguf") && !later) found.push_back(entry.path());
  }
  if (found.empty()) return std::nullopt;
  std::ranges::sort(found);
  if (found.size() > 1) {
    fail(ErrorCode::kInvalidInput,
         "{}: holds '{}' and '{}'; give the one that is meant", folder,
         found[0].filename(), found[1].filename());
  }
  return found[0];
}

std::vector<fs::path> gguf_files(const fs::path& path) {
  const GgufFile file = GgufFile::open(path);
  return {file.files().begin(), file.files().end()};
}

std::map<std::string, std::string> read_gguf_files(const fs::path& path) {
  return gguf_tokenizer_files(GgufFile::open(path).metadata());
}

}  // namespace llmpress
