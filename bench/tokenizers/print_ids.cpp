// Ids of texts, for compare_ids.py: print_ids FOLDER TEXTS.json, an array of
// strings; prints an array with the ids of each, or the message of its error.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/tokenizers/tokenizer.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    const auto tokenizer = llmpress::load_tokenizer(argv[1]);
    auto out = nlohmann::json::array();
    for (const auto& text :
         nlohmann::json::parse(llmpress::read_file(argv[2]))) {
      try {
        out.push_back(tokenizer->encode_document(text.get<std::string>()));
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
