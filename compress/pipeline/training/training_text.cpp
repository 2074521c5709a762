#include "compress/pipeline/training/training_text.h"

#include "compress/calibration/token_stream.h"
#include "compress/core/formatted.h"
#include "formats/containers/hdf5_file.h"
#include "formats/tokenizers/text_documents.h"

namespace llmpress {

TrainingText read_training_text(const std::filesystem::path& path,
                                const Tokenizer& tokenizer) {
  TrainingText text;
  if (is_hdf5_file(path)) {
    TokenStream stream = read_token_stream(path, tokenizer);
    text.sha256 = std::move(stream.sha256);
    text.documents.push_back(std::move(stream.ids));
  } else {
    TextDocuments read = read_text_documents(path);
    text.sha256 = std::move(read.sha256);
    for (const std::string& document : read.documents) {
      text.documents.push_back(tokenizer.encode_document(document));
      // One document is a running text: nothing ends in it.
      if (read.documents.size() > 1 && tokenizer.eos_id) {
        text.documents.back().push_back(*tokenizer.eos_id);
      }
    }
  }
  for (const auto& document : text.documents) text.tokens += document.size();
  if (text.tokens == 0) {
    fail(ErrorCode::kInvalidInput, "{}: holds no text to train on", path);
  }
  return text;
}

}  // namespace llmpress
