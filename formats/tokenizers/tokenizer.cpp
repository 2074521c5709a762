#include "formats/tokenizers/tokenizer.h"

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/files/mapped_file.h"
#include "formats/tokenizers/json_tokenizer.h"
#include "formats/tokenizers/sentencepiece_tokenizer.h"
#include "formats/tokenizers/tokenizer_config.h"

namespace llmpress {
namespace {

constexpr const char* kJsonName = "tokenizer.json";
constexpr const char* kSentencePieceName = "tokenizer.model";

std::string in_folder(const std::string& folder, const char* name) {
  return folder.empty() ? name : folder + "/" + name;
}

TokenizerSideFiles files_beside(const FileContents& content_of) {
  return {.config = content_of("tokenizer_config.json"),
          .special_tokens = content_of("special_tokens_map.json"),
          .added_tokens = content_of("added_tokens.json")};
}

FileContents contents_of_folder(const std::filesystem::path& folder) {
  return [folder](const std::string& name) {
    const auto path = folder / name;
    return path_exists(path) ? read_file(path) : "";
  };
}

}  // namespace

std::vector<TokenId> Tokenizer::encode_document(std::string_view text) const {
  std::vector<TokenId> ids = encode(text);
  if (adds_bos) ids.insert(ids.begin(), *bos_id);
  return ids;
}

std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view json,
                                               const TokenizerSideFiles& beside,
                                               const std::string& origin) {
  const JsonDocument document(json, in_folder(origin, kJsonName));
  auto tokenizer = std::make_unique<JsonTokenizer>(
      document.root(), read_tokenizer_config(beside, origin));
  tokenizer->sha256 = sha256_hex(json);
  return tokenizer;
}

std::unique_ptr<Tokenizer> tokenizer_from_sentencepiece(
    std::string_view model, const TokenizerSideFiles& beside,
    const std::string& origin) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>(
      model, read_tokenizer_config(beside, origin),
      in_folder(origin, kSentencePieceName));
  tokenizer->sha256 = sha256_hex(model);
  return tokenizer;
}

std::unique_ptr<Tokenizer> tokenizer_from_files(const FileContents& content_of,
                                                const std::string& origin) {
  const TokenizerSideFiles beside = files_beside(content_of);
  const std::string json = content_of(kJsonName);
  const std::string model = content_of(kSentencePieceName);
  if (json.empty() && model.empty()) {
    fail(ErrorCode::kInvalidInput,
         "{}: no tokenizer, wanted tokenizer.json or tokenizer.model", origin);
  }
  try {
    if (!json.empty()) return tokenizer_from_json(json, beside, origin);
  } catch (const Error& unsupported) {
    if (unsupported.code() != ErrorCode::kUnsupported || model.empty()) throw;
  }
  return tokenizer_from_sentencepiece(model, beside, origin);
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return tokenizer_from_files(contents_of_folder(path), path.string());
  }
  const auto folder = path.parent_path();
  const TokenizerSideFiles beside = files_beside(contents_of_folder(folder));
  return path.extension() == ".json"
             ? tokenizer_from_json(read_file(path), beside, folder.string())
             : tokenizer_from_sentencepiece(read_file(path), beside,
                                            folder.string());
}

}  // namespace llmpress
