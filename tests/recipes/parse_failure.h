// What a recipe that must be refused is refused with.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "compress/core/error.h"
#include "quantizers/method.h"
#include "recipes/recipe_parser.h"

namespace llmpress {

// The message, or "" (and a failed test) if the recipe is accepted.
inline std::string refusal(const std::string& text,
                           const std::vector<std::string>& set = {}) {
  try {
    parse_recipe(text, "recipe.yaml", {.set = set});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted:\n" << text;
  return "";
}

// A recipe with one `quantize` stage of this flow-style body.
inline std::string quantizing(const std::string& body) {
  return "calibration: {text: c.txt}\nstages:\n  - quantize: {" + body + "}\n";
}

// The body of a stage that says no more than the method needs.
inline std::string choosing(const QuantizerMethod& method) {
  return "method: " + std::string(method.name) +
         (method.chooses_precision() ? ", target_bits: 4" : "");
}

inline QuantizeStage quantize_stage(const std::string& body) {
  const Recipe recipe = parse_recipe(quantizing(body), "recipe.yaml");
  return std::get<QuantizeStage>(recipe.stages.at(0));
}

}  // namespace llmpress
