#include "compress/model/model_source.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/model/families/wrappers.h"
#include "compress/model/tensor_places.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/config_reader.h"
#include "formats/containers/gguf.h"
#include "formats/containers/hdf5_file.h"
#include "formats/gguf/gguf_checkpoint.h"
#include "formats/llama2c/llama2c_file.h"
#include "formats/llama2c/llama2c_tokenizer.h"

namespace llmpress {

namespace fs = std::filesystem;

namespace {

// The files that a model in one file carries; nullopt for a folder.
std::optional<std::map<std::string, std::string>> files_within(
    const fs::path& path) {
  if (is_gguf_file(path)) return read_gguf_files(path);
  if (is_hdf5_file(path)) return read_hdf5_files(path);
  if (is_llama2c_file(path)) return read_llama2c_files(path);
  return std::nullopt;
}

// `files` must outlive it.
FileContents contents_of(const std::map<std::string, std::string>& files) {
  return [&files](const std::string& name) {
    const auto found = files.find(name);
    return found == files.end() ? std::string() : found->second;
  };
}

}  // namespace

std::unique_ptr<Tokenizer> load_model_tokenizer(const fs::path& path) {
  const auto within = files_within(path);
  if (!within) return load_tokenizer(path);
  return tokenizer_from_files(contents_of(*within), path.string());
}

std::optional<ChatTemplate> load_chat_template(const fs::path& path) {
  if (const auto within = files_within(path)) {
    return find_chat_template(contents_of(*within), path.string());
  }
  return find_chat_template(
      [&](const std::string& name) {
        const fs::path file = path / name;
        return fs::is_regular_file(file) ? read_file(file) : std::string();
      },
      path.string());
}

namespace {

// In the place of a tokenizer that is not there: token ids can be used, a text
// cannot.
class AbsentTokenizer : public Tokenizer {
 public:
  AbsentTokenizer(std::size_t vocabulary, std::string origin)
      : vocabulary_(vocabulary), origin_(std::move(origin)) {
    kind = "none";
  }
  std::vector<TokenId> encode(std::string_view /*text*/) const override {
    refuse();
  }
  std::string decode(std::span<const TokenId> /*ids*/) const override {
    refuse();
  }
  std::size_t vocabulary_size() const override { return vocabulary_; }

 private:
  [[noreturn]] void refuse() const {
    fail(ErrorCode::kInvalidInput,
         "{}: has neither tokenizer.json nor tokenizer.model, so no text can "
         "be read; token ids in an HDF5 file (input_ids) need none",
         origin_);
  }

  std::size_t vocabulary_;
  std::string origin_;
};

bool has_tokenizer(const fs::path& path) {
  if (const auto files = files_within(path)) {
    return files->contains("tokenizer.json") ||
           files->contains("tokenizer.model");
  }
  std::error_code ignored;
  return fs::exists(path / "tokenizer.json", ignored) ||
         fs::exists(path / "tokenizer.model", ignored);
}

}  // namespace

bool has_known_architecture(const Checkpoint& checkpoint) {
  const ConfigReader config = ConfigReader::parse(
      checkpoint.config_json(), config_place(checkpoint.path().string()));
  const auto is_family = [](const ConfigReader& own) {
    const auto type = own.text("model_type");
    const std::vector<std::string> known = known_families();
    return type && std::ranges::find(known, *type) != known.end();
  };
  const std::optional<ConfigReader> text = config.object("text_config");
  if (!text) return is_family(config);
  const auto outer = config.text("model_type");
  return is_family(*text) &&
         std::ranges::any_of(wrappers(), [&](const Wrapper& wrapper) {
           return outer == wrapper.model_type;
         });
}

ModelSource open_model(const fs::path& path, PackedLinears packed) {
  return open_model(open_checkpoint(path), packed);
}

ModelSource open_model(std::unique_ptr<Checkpoint> checkpoint,
                       PackedLinears packed) {
  const fs::path path = checkpoint->path();
  ModelSource model;
  model.checkpoint = std::move(checkpoint);
  model.arch =
      std::make_unique<Architecture>(read_architecture(*model.checkpoint));
  check_model(*model.checkpoint, *model.arch, packed);
  model.tokenizer = has_tokenizer(path)
                        ? load_model_tokenizer(path)
                        : std::make_unique<AbsentTokenizer>(
                              model.arch->vocabulary, path.string());
  check_tokenizer(*model.tokenizer, *model.arch, path.string());
  return model;
}

std::vector<TokenId> stop_tokens(const ModelSource& source,
                                 const fs::path& path) {
  std::vector<std::size_t> ids = source.arch->eos_ids;
  const fs::path file = path / "generation_config.json";
  if (fs::is_regular_file(file)) {
    const auto own = ConfigReader::parse(read_file(file), file.string())
                         .sizes("eos_token_id");
    if (!own.empty()) ids = own;
  }
  if (ids.empty() && source.tokenizer->eos_id) {
    ids.push_back(*source.tokenizer->eos_id);
  }
  std::vector<TokenId> stop;
  for (const std::size_t id : ids) stop.push_back(static_cast<TokenId>(id));
  return stop;
}

}  // namespace llmpress
