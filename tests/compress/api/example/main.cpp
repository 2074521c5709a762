// Makes an artifact by a recipe, then evaluates it and lets it write:
//
//   example RECIPE.yaml MODEL OUTPUT TEXT
#include <llmpress/llmpress.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace {

void compress_and_try(char** arguments) {
  // Of paths in a recipe, relative ones are relative to its folder.
  const std::string output = std::filesystem::absolute(arguments[3]),
                    text = std::filesystem::absolute(arguments[4]);
  const llmpress::Engine engine({.log = [](const std::string& line) {
    std::fprintf(stderr, "%s\n", line.c_str());
  }});
  const llmpress::RunResult result = engine.run(
      arguments[1], {.model = arguments[2],
                     .output = output,
                     .set = {"evaluate.text=" + text, "evaluate.max_windows=4",
                             "report=" + output + ".report"}});
  for (const llmpress::ArtifactResult& artifact : result.artifacts) {
    std::printf("%s: %.3f bits per weight\n", artifact.path.c_str(),
                artifact.bits_per_weight);
  }

  const llmpress::Model model = engine.open(result.artifacts.front().path);
  const std::vector<std::uint32_t> ids = model.encode("Once upon a time");
  const std::vector<float> logits = model.logits(ids);
  std::printf("%zu logits of %zu tokens\n", logits.size(), ids.size());
  std::printf("perplexity %.4f\n", model.perplexity(text, 128, 4).perplexity);
  std::printf(
      "Once upon a time%s\n",
      model.generate("Once upon a time", {.max_new_tokens = 16}).c_str());
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) {
    std::fprintf(stderr, "usage: example RECIPE.yaml MODEL OUTPUT TEXT\n");
    return EXIT_FAILURE;
  }
  try {
    std::printf("llmpress %s\n", llmpress::version().c_str());
    compress_and_try(arguments);
    return EXIT_SUCCESS;
  } catch (const llmpress::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return EXIT_FAILURE;
  }
}
