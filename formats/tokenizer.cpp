#include "formats/tokenizer.h"

#include "compress/core/error.h"
#include "formats/artifact_writer.h"
#include "formats/bpe_tokenizer.h"
#include "formats/mapped_file.h"
#include "formats/sentencepiece_tokenizer.h"
#include "formats/tokenizer_config.h"

namespace llmpress {
namespace {

constexpr const char* kJsonName = "tokenizer.json";
constexpr const char* kSentencePieceName = "tokenizer.model";
constexpr const char* kConfigName = "tokenizer_config.json";

std::string in_folder(const std::string& folder, const char* name) {
  return folder.empty() ? name : folder + "/" + name;
}

TokenizerConfig config_from(std::string_view json, const std::string& origin) {
  return read_tokenizer_config(json, in_folder(origin, kConfigName));
}

std::string read_if_there(const std::filesystem::path& path) {
  return path_exists(path) ? read_file(path) : "";
}

}  // namespace

std::vector<TokenId> Tokenizer::encode_document(std::string_view text) const {
  std::vector<TokenId> ids = encode(text);
  if (adds_bos) ids.insert(ids.begin(), *bos_id);
  return ids;
}

std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view json,
                                               std::string_view config_json,
                                               const std::string& origin) {
  const JsonDocument document(json, in_folder(origin, kJsonName));
  auto tokenizer = std::make_unique<BpeTokenizer>(
      document.root(), config_from(config_json, origin));
  tokenizer->sha256 = sha256_hex(json);
  return tokenizer;
}

std::unique_ptr<Tokenizer> tokenizer_from_sentencepiece(
    std::string_view model, std::string_view config_json,
    const std::string& origin) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>(
      model, config_from(config_json, origin),
      in_folder(origin, kSentencePieceName));
  tokenizer->sha256 = sha256_hex(model);
  return tokenizer;
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path) {
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(path, error);
  const auto folder = is_folder ? path : path.parent_path();
  const std::string config = read_if_there(folder / kConfigName);
  const std::string origin = folder.string();
  if (!is_folder) {
    const std::string content = read_file(path);
    return path.extension() == ".json"
               ? tokenizer_from_json(content, config, origin)
               : tokenizer_from_sentencepiece(content, config, origin);
  }
  const bool has_model = path_exists(folder / kSentencePieceName);
  if (path_exists(folder / kJsonName)) {
    try {
      return tokenizer_from_json(read_file(folder / kJsonName), config, origin);
    } catch (const Error& unsupported) {
      if (unsupported.code() != ErrorCode::kUnsupported || !has_model) throw;
    }
  } else if (!has_model) {
    throw Error(ErrorCode::kInvalidInput,
                path.string() +
                    ": no tokenizer, wanted tokenizer.json or tokenizer.model");
  }
  return tokenizer_from_sentencepiece(read_file(folder / kSentencePieceName),
                                      config, origin);
}

}  // namespace llmpress
