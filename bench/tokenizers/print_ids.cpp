// Ids of texts, for compare_ids.py: print_ids FOLDER TEXTS.json, an array of
// strings; prints an array with the ids of each, or the message of its error.
// With --decoded, for compare_models.py, of each text without what stands before
// it, and {"ids": [...], "text": what the ids decode to}.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string_view>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/tokenizers/tokenizer.h"

int main(int argc, char** argv) {
  const bool decoded = argc == 4 && std::string_view(argv[3]) == "--decoded";
  if (argc != 3 && !decoded) return 2;
  try {
    const auto tokenizer = llmpress::load_tokenizer(argv[1]);
    auto out = nlohmann::json::array();
    for (const auto& text :
         nlohmann::json::parse(llmpress::read_file(argv[2]))) {
      try {
        const auto& content = text.get_ref<const std::string&>();
        if (decoded) {
          const auto ids = tokenizer->encode(content);
          out.push_back({{"ids", ids}, {"text", tokenizer->decode(ids)}});
        } else {
          out.push_back(tokenizer->encode_document(content));
        }
      } catch (const llmpress::Error& error) {
        out.push_back(error.what());
      }
    }
    std::puts(out.dump().c_str());
  } catch (const llmpress::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}
