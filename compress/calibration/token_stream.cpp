#include "compress/calibration/token_stream.h"

#include <utility>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/hdf5_file.h"
#include "formats/containers/hdf5_tables.h"
#include "formats/tokenizers/text_documents.h"

namespace llmpress {
namespace {

TokenStream read_token_ids(const std::filesystem::path& path,
                           const Tokenizer& tokenizer) {
  TokenStream stream{.ids = read_token_table(path).ids,
                     .sha256 = sha256_hex(read_file(path))};
  for (std::size_t i = 0; i < stream.ids.size(); ++i) {
    if (stream.ids[i] < tokenizer.vocabulary_size()) continue;
    fail(ErrorCode::kInvalidInput,
         "{}: token id {} at position {} is not in the tokenizer's vocabulary "
         "of {}",
         path, stream.ids[i], i, tokenizer.vocabulary_size());
  }
  return stream;
}

}  // namespace

TokenStream read_token_stream(const std::filesystem::path& path,
                              const Tokenizer& tokenizer) {
  if (is_hdf5_file(path)) return read_token_ids(path, tokenizer);
  TextDocuments text = read_text_documents(path);
  TokenStream stream{.sha256 = std::move(text.sha256)};
  for (const std::string& document : text.documents) {
    const std::vector<TokenId> ids = tokenizer.encode_document(document);
    stream.ids.insert(stream.ids.end(), ids.begin(), ids.end());
  }
  return stream;
}

}  // namespace llmpress
