// Any text is a recipe or an Error; a recipe comes back from its resolved form.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "compress/core/error.h"
#include "recipes/recipe_parser.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  llmpress::Recipe recipe;
  try {
    recipe = llmpress::parse_recipe(text, "/r/recipe.yaml");
  } catch (const llmpress::Error&) {
    return 0;
  }
  if (!(llmpress::parse_recipe(llmpress::resolved_yaml(recipe), "/x/y.yaml") ==
        recipe)) {
    std::abort();
  }
  return 0;
}
