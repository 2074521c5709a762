// docs/recipe.md: it has every key, and its parts between "<!-- rows: NAME -->"
// and "<!-- end -->" are what the methods' rows say. With LLMPRESS_UPDATE_DOCS=1
// in the environment the test writes them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "distill/distill_config.h"
#include "distill/train_config.h"
#include "quantizers/method.h"
#include "recipes/recipe_parser.h"
#include "tests/places.h"
#include "tests/recipes/parse_failure.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

fs::path page() { return fs::path(source_dir()) / "docs" / "recipe.md"; }

std::string read_page() {
  std::ostringstream text;
  text << std::ifstream(page(), std::ios::binary).rdbuf();
  return text.str();
}

std::string short_number(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

std::string code(std::string_view word) {
  return "`" + std::string(word) + "`";
}

template <class Config>
struct TypeText {
  std::string operator()(const BoolSetting<Config>&) const { return "bool"; }
  std::string operator()(const CountSetting<Config>& s) const {
    return "count " + std::to_string(s.low) + ".." + std::to_string(s.high);
  }
  std::string operator()(const NumberSetting<Config>& s) const {
    return "number " + short_number(s.low) + ".." + short_number(s.high);
  }
  std::string operator()(const WordSetting<Config>& s) const {
    std::string words;
    for (std::size_t i = 0; i < s.words; ++i) {
      words += (i > 0 ? ", " : "") + code(s.word(i));
    }
    return words;
  }
};

template <class Config>
struct DefaultText {
  const Config& defaults;
  std::string operator()(const BoolSetting<Config>& s) const {
    return s.place.get(defaults) ? "true" : "false";
  }
  std::string operator()(const CountSetting<Config>& s) const {
    const std::size_t value = s.place.get(defaults);
    return value < s.low ? "*required*" : std::to_string(value);
  }
  std::string operator()(const NumberSetting<Config>& s) const {
    return short_number(s.place.get(defaults));
  }
  std::string operator()(const WordSetting<Config>& s) const {
    return code(s.word(s.place.get(defaults)));
  }
};

constexpr std::string_view kTableHead =
    "| key | type | default | meaning |\n|---|---|---|---|\n";

// `owner`, if any, stands before each meaning.
template <class Config>
std::string table_rows(std::span<const Setting<Config>> settings,
                       const std::string& owner = "",
                       const Config& defaults = {}) {
  std::string text;
  for (const Setting<Config>& s : settings) {
    text += "| " + code(s.key) + " | " +
            std::visit(TypeText<Config>{}, s.value) + " | " +
            std::visit(DefaultText<Config>{defaults}, s.value) + " | " + owner +
            std::string(s.meaning) + " |\n";
  }
  return text;
}

std::string calibration_text(const QuantizerMethod& method) {
  const QuantizeConfig config = quantize_stage(choosing(method)).config;
  if (method.chooses_precision()) return "yes";
  if (any(method.needs(config))) {
    return method.uncalibrated_by.empty()
               ? "yes"
               : "yes, but for " + code(method.uncalibrated_by);
  }
  return method.weights == WeightKinds::kTables
             ? "no"
             : "no, but for static activations";
}

std::string methods_text() {
  std::string text =
      "| method | what it does | needs calibration |\n|---|---|---|\n";
  for (const QuantizerMethod& method : quantizer_methods()) {
    text += "| " + code(method.name) + " | " + std::string(method.summary) +
            " (" + std::string(method.paper) + ")";
    if (!method.scheme.empty()) {
      text += "; default scheme " + code(method.scheme);
    } else if (method.group_size != WeightScheme{}.group_size) {
      text += "; default groups of " + std::to_string(method.group_size);
    }
    text += " | " + calibration_text(method) + " |\n";
  }
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (!method.settings_in_stage) continue;
    text += "\nOf method or solver " + code(method.name) + ":\n\n" +
            std::string(kTableHead) + table_rows(method.settings);
  }
  text +=
      "\nMethods with a section of their own:\n\n" + std::string(kTableHead);
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (!method.has_section()) continue;
    text += "| " + code(method.name) + " | section | | of method " +
            code(method.name) + " |\n";
  }
  return text;
}

std::string sections_text() {
  std::string text;
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (!method.has_section()) continue;
    text += (text.empty() ? "## " : "\n## ") + code(method.name) + "\n\n" +
            std::string(kTableHead) + table_rows(method.settings);
  }
  return text;
}

std::string smooth_text() {
  std::string names, settings;
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (!method.moves_scales()) continue;
    names += (names.empty() ? "" : ", ") + code(method.name);
    settings += table_rows(method.settings, code(method.name) + ": ");
  }
  return std::string(kTableHead) + "| `method` | " + names + " | " +
         code(kDefaultScaling) + " | |\n" + settings +
         "| `weights` | section | | the grid that a search rounds to; default: "
         "that of the next `quantize` |\n";
}

std::string prune_methods_text() {
  std::string text =
      "| method | what it does | needs calibration |\n|---|---|---|\n";
  for (const PruneMethodFacts& facts : prune_methods()) {
    const PruneConfig least{.method = facts.method,
                            .importance = Importance::kWeights,
                            .heal = false};
    const std::string_view needs =
        needs_calibration(least) ? "yes"
        : facts.single_weights   ? "no, but for `allocation: owl`"
                                 : "yes, unless it neither heals nor learns "
                                   "what to take";
    text += "| " + code(facts.name) + " | " + std::string(facts.summary) +
            " | " + std::string(needs) + " |\n";
  }
  return text;
}

// `text` with its part of that name replaced.
std::string with_part(const std::string& text, const std::string& name,
                      const std::string& part) {
  const std::string begin = "<!-- rows: " + name + " -->\n";
  const std::size_t from = text.find(begin);
  const std::size_t to = text.find("<!-- end -->", from);
  EXPECT_TRUE(from != std::string::npos && to != std::string::npos) << begin;
  if (from == std::string::npos || to == std::string::npos) return text;
  return text.substr(0, from + begin.size()) + part + text.substr(to);
}

TEST(RecipeReference, SaysOfMethodsWhatTheirRowsSay) {
  const std::string text = read_page();
  std::string wanted = with_part(text, "methods", methods_text());
  wanted = with_part(wanted, "sections of methods", sections_text());
  wanted = with_part(wanted, "smooth", smooth_text());
  wanted = with_part(wanted, "methods of prune", prune_methods_text());
  wanted = with_part(wanted, "prune",
                     std::string(kTableHead) + table_rows(prune_settings()));
  wanted = with_part(wanted, "train",
                     std::string(kTableHead) + table_rows(train_settings()));
  wanted = with_part(wanted, "distill",
                     std::string(kTableHead) + table_rows(distill_settings()) +
                         table_rows(train_settings()));
  wanted = with_part(wanted, "tune",
                     std::string(kTableHead) + table_rows(tune_settings()));
  wanted =
      with_part(wanted, "training of tune",
                std::string(kTableHead) +
                    table_rows(train_settings(), "", TuneStage{}.train.config));
  if (std::getenv("LLMPRESS_UPDATE_DOCS") != nullptr) {
    std::ofstream(page(), std::ios::binary) << wanted;
    return;
  }
  EXPECT_EQ(text, wanted) << "LLMPRESS_UPDATE_DOCS=1 writes it";
}

// Keys are written `like this` in the section's table of docs/recipe.md.
TEST(RecipeReference, MentionsEveryKeyPresetAndMethod) {
  const std::string text = read_page();
  for (const RecipeKey& key : recipe_keys()) {
    const std::string heading = "## `" + std::string(key.section) + "`";
    const std::size_t begin =
        key.section.empty() ? text.find("## Top level") : text.find(heading);
    ASSERT_NE(begin, std::string::npos) << "no section '" << heading << "'";
    const std::string section =
        text.substr(begin, text.find("\n## ", begin + 1) - begin);
    EXPECT_NE(section.find("| `" + std::string(key.key) + "`"),
              std::string::npos)
        << "'" << key.key << "' in '" << key.section << "'";
  }
  for (const std::string_view scheme : scheme_names()) {
    EXPECT_NE(text.find("`" + std::string(scheme) + "`"), std::string::npos)
        << scheme;
  }
  for (const QuantizerMethod& method : quantizer_methods()) {
    EXPECT_NE(text.find("`" + std::string(method.name) + "`"),
              std::string::npos)
        << method.name;
  }
}

}  // namespace
}  // namespace llmpress
