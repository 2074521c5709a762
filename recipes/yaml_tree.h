// YAML text as a plain tree with positions: what the recipe reader works on.
// yaml-cpp is known to yaml_tree.cpp only. Aliases are expanded (bounded), so
// that an override changes one place; repeated keys, foreign tags and several
// documents are errors.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/error.h"
#include "recipes/source_position.h"

namespace llmpress {

struct YamlKey {
  std::string name{};
  SourcePosition position{};
};

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  std::string scalar{};
  bool quoted = false;            // a quoted scalar is a string, never a number
  std::vector<YamlKey> keys{};    // kMap: of items, in the order written
  std::vector<YamlNode> items{};  // kList, kMap
  SourcePosition position{};

  const YamlNode* find(std::string_view key) const;  // kMap; null if absent
};

// 'word', in the apostrophes of messages.
std::string quote(std::string_view word);

// "the string '3'", "a list", ... for messages.
std::string describe(const YamlNode& node);

// `origin` names the text in positions. Throws Error(kInvalidArgument).
YamlNode parse_yaml(const std::string& text, const std::string& origin);

// Applies "a.b.0.c=value" (the value is YAML). Maps on the way are made where
// they are absent; a list index must exist. Throws Error(kInvalidArgument)
// whose message starts with "--set <assignment>".
void set_in_tree(YamlNode& root, const std::string& assignment);

[[noreturn]] void fail_at(const SourcePosition& position,
                          const std::string& message);

}  // namespace llmpress
