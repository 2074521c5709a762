// No method of quantization is known by name outside quantizers/: others ask its
// row. Sources are searched for the names as string literals.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "quantizers/method.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// Where a word that a method has too names a format or a type of weights.
constexpr std::array<std::string_view, 5> kOtherWords = {
    "compress/model/families/mamba_mixer.cpp",  // a size in config.json
    "compress/tool/imatrix_command.cpp",        // a file of llama.cpp
    "recipes/words.h",                          // formats of output
    "recipes/schemes.cpp",                      // types of weights
    "compress/core/packed/table4_weight.cpp"};  // the same, in descriptions

std::vector<std::string> names_in(std::string line) {
  line.resize(std::min(line.size(), line.find("//")));
  std::vector<std::string> found;
  for (const QuantizerMethod& method : quantizer_methods()) {
    const std::string name(method.name);
    if (line.find('"' + name + '"') != std::string::npos) found.push_back(name);
  }
  return found;
}

TEST(MethodNames, AreFoundInALineOfCode) {
  EXPECT_EQ(names_in("  if (config.method == \"gptq\") return;"),
            std::vector<std::string>{"gptq"});
  EXPECT_TRUE(names_in("  int gptq;  // \"gptq\"").empty());
}

TEST(MethodNames, StandInNoSourceOutsideQuantizers) {
  const fs::path root = source_dir();
  std::size_t files = 0;
  for (const char* folder : {"compress", "recipes", "pruning", "lora"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension().string();
      if (extension != ".cpp" && extension != ".h") continue;
      const std::string path = entry.path().lexically_relative(root).string();
      if (std::ranges::find(kOtherWords, path) != kOtherWords.end()) continue;
      ++files;
      std::ifstream source(entry.path());
      for (std::string line; std::getline(source, line);) {
        for (const std::string& name : names_in(line)) {
          ADD_FAILURE() << path << " knows method " << name << ": " << line;
        }
      }
    }
  }
  EXPECT_GT(files, 100u);
}

}  // namespace
}  // namespace llmpress
