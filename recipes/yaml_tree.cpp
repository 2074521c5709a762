#include "recipes/yaml_tree.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace llmpress {
namespace {

// Far beyond any recipe; stops aliases of aliases from filling the memory.
constexpr std::size_t kMaxNodes = 100'000;
constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxTextBytes = 4 << 20;

SourcePosition position_of(const YAML::Mark& mark, const std::string& origin) {
  if (mark.is_null()) return {.file = origin};
  return {.file = origin,
          .line = static_cast<std::size_t>(mark.line) + 1,
          .column = static_cast<std::size_t>(mark.column) + 1};
}

// The tags that yaml-cpp gives to untagged nodes, and those of YAML's core
// schema.
bool known_tag(const std::string& tag) {
  for (const char* known : {"", "?", "!", "tag:yaml.org,2002:str",
                            "tag:yaml.org,2002:int", "tag:yaml.org,2002:float",
                            "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null",
                            "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}) {
    if (tag == known) return true;
  }
  return false;
}

class TreeBuilder {
 public:
  explicit TreeBuilder(const std::string& origin) : origin_(origin) {}

  YamlNode build(const YAML::Node& source, std::size_t depth) {
    YamlNode node{.position = position_of(source.Mark(), origin_)};
    if (++nodes_ > kMaxNodes || depth > kMaxDepth) {
      fail_at(node.position, "too many or too deeply nested values");
    }
    if (!known_tag(source.Tag())) {
      fail_at(node.position, "tag '" + source.Tag() + "' is not supported");
    }
    if (source.IsScalar()) {
      node.kind = YamlNode::Kind::kScalar;
      node.scalar = source.Scalar();
      node.quoted = source.Tag() == "!" || source.Tag().ends_with(":str");
    } else if (source.IsSequence()) {
      node.kind = YamlNode::Kind::kList;
      for (const YAML::Node& item : source) {
        node.items.push_back(build(item, depth + 1));
      }
    } else if (source.IsMap()) {
      node.kind = YamlNode::Kind::kMap;
      for (const auto& entry : source) {
        add_key(node, entry.first);
        node.items.push_back(build(entry.second, depth + 1));
      }
    }
    return node;
  }

 private:
  void add_key(YamlNode& map, const YAML::Node& source) {
    const SourcePosition position = position_of(source.Mark(), origin_);
    if (!source.IsScalar()) fail_at(position, "a key must be a word");
    const std::string& name = source.Scalar();
    for (const YamlKey& earlier : map.keys) {
      if (earlier.name != name) continue;
      fail_at(position, "key '" + name + "' is given twice; first at line " +
                            std::to_string(earlier.position.line));
    }
    map.keys.push_back({.name = name, .position = position});
  }

  const std::string& origin_;
  std::size_t nodes_ = 0;
};

// Every value of an override stands where the override was given.
void place(YamlNode& node, const SourcePosition& position) {
  node.position = position;
  for (YamlKey& key : node.keys) key.position = position;
  for (YamlNode& item : node.items) place(item, position);
}

std::vector<std::string> split_path(const std::string& path) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = path.find('.', begin);
    parts.push_back(path.substr(begin, end - begin));
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

YamlNode& child_of_list(YamlNode& list, const std::string& part,
                        const SourcePosition& position) {
  std::size_t index = 0;
  const char* end = part.data() + part.size();
  const auto [stop, code] = std::from_chars(part.data(), end, index);
  if (code != std::errc() || stop != end) {
    fail_at(position, quote(part) + " must be the index of a list entry");
  }
  if (index >= list.items.size()) {
    fail_at(position, "no entry " + part + " in a list of " +
                          std::to_string(list.items.size()));
  }
  return list.items[index];
}

YamlNode& child_of_map(YamlNode& map, const std::string& part,
                       const SourcePosition& position) {
  for (std::size_t i = 0; i < map.keys.size(); ++i) {
    if (map.keys[i].name == part) return map.items[i];
  }
  map.keys.push_back({.name = part, .position = position});
  map.items.push_back({.position = position});
  return map.items.back();
}

}  // namespace

const YamlNode* YamlNode::find(std::string_view key) const {
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].name == key) return &items[i];
  }
  return nullptr;
}

std::string quote(std::string_view word) {
  std::string text(1, '\'');
  text += word;
  text += '\'';
  return text;
}

std::string describe(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "empty";
    case YamlNode::Kind::kScalar:
      return node.quoted ? "the string " + quote(node.scalar)
                         : quote(node.scalar);
    case YamlNode::Kind::kList:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a map";
  }
  return {};
}

YamlNode parse_yaml(const std::string& text, const std::string& origin) {
  if (text.size() > kMaxTextBytes) {
    fail_at({.file = origin}, "longer than a recipe can be (4 MiB)");
  }
  std::vector<YAML::Node> documents;
  try {
    documents = YAML::LoadAll(text);
  } catch (const YAML::Exception& error) {
    fail_at(position_of(error.mark, origin), "not YAML: " + error.msg);
  }
  if (documents.empty()) return {.position = {.file = origin}};
  if (documents.size() > 1) {
    fail_at(position_of(documents[1].Mark(), origin),
            "a second document; a recipe is one");
  }
  return TreeBuilder(origin).build(documents.front(), 0);
}

void set_in_tree(YamlNode& root, const std::string& assignment) {
  const std::string origin = "--set " + assignment;
  const SourcePosition position{.file = origin};
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    fail_at(position, "wants the form key.key=value");
  }
  YamlNode* node = &root;
  for (const std::string& part : split_path(assignment.substr(0, equals))) {
    if (part.empty()) fail_at(position, "an empty key between two dots");
    switch (node->kind) {
      case YamlNode::Kind::kScalar:
        fail_at(position, quote(part) + " is under " + describe(*node) +
                              ", which is a value, not a section");
      case YamlNode::Kind::kList:
        node = &child_of_list(*node, part, position);
        break;
      case YamlNode::Kind::kNull:
        node->kind = YamlNode::Kind::kMap;
        [[fallthrough]];
      case YamlNode::Kind::kMap:
        node = &child_of_map(*node, part, position);
        break;
    }
  }
  *node = parse_yaml(assignment.substr(equals + 1), origin);
  place(*node, position);
}

void fail_at(const SourcePosition& position, const std::string& message) {
  const std::string where = position.to_string();
  throw Error(ErrorCode::kInvalidArgument,
              where.empty() ? message : where + ": " + message);
}

}  // namespace llmpress
