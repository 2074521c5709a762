#include "recipes/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <map>
#include <sstream>
#include <utility>

#include "compress/core/formatted.h"

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

// Makes the tree from the parser's events. (YAML::LoadAll would do it too, but
// never ends on a stray '}'.)
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const std::string& origin) : origin_(origin) {}

  YamlNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ == 0) return;
    fail_at(
        position_of(mark, origin_),
        "the recipe ends before this: a second document, or a stray bracket "
        "or comma");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    count(1, mark);
    add({.position = position_of(mark, origin_)}, anchor, 1);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) {
      fail_at(position_of(mark, origin_), "an alias inside what it stands for");
    }
    const auto& [node, size] = found->second;
    count(size, mark);
    add(node, YAML::NullAnchor, size);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag,
                YAML::anchor_t anchor, const std::string& value) override {
    check_tag(mark, tag);
    count(1, mark);
    add({.kind = YamlNode::Kind::kScalar,
         .scalar = value,
         .quoted = tag == "!" || tag.ends_with(":str"),
         .position = position_of(mark, origin_)},
        anchor, 1);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag,
                       YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(YamlNode::Kind::kList, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag,
                  YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    open(YamlNode::Kind::kMap, mark, tag, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  // A list or map whose end has not come yet.
  struct Frame {
    YamlNode node{};
    YAML::anchor_t anchor = YAML::NullAnchor;
    std::size_t size = 1;  // nodes in it
    bool key_read = false;
  };
  struct Anchored {
    YamlNode node{};
    std::size_t size = 0;
  };

  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (known_tag(tag)) return;
    fail_at(position_of(mark, origin_), "tag '" + tag + "' is not supported");
  }
  void count(std::size_t nodes, const YAML::Mark& mark) {
    nodes_ += nodes;
    if (nodes_ > kMaxNodes || open_.size() > kMaxDepth) {
      fail_at(position_of(mark, origin_),
              "too many or too deeply nested values");
    }
  }
  void open(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag,
            YAML::anchor_t anchor) {
    check_tag(mark, tag);
    count(1, mark);
    open_.push_back(
        Frame{.node = {.kind = kind, .position = position_of(mark, origin_)},
              .anchor = anchor});
  }
  void close() {
    Frame frame = std::move(open_.back());
    open_.pop_back();
    add(std::move(frame.node), frame.anchor, frame.size);
  }

  void add(YamlNode node, YAML::anchor_t anchor, std::size_t size) {
    if (anchor != YAML::NullAnchor) anchors_[anchor] = {node, size};
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = open_.back();
    frame.size += size;
    if (frame.node.kind == YamlNode::Kind::kMap && !frame.key_read) {
      add_key(frame.node, node);
      frame.key_read = true;
    } else {
      frame.node.items.push_back(std::move(node));
      frame.key_read = false;
    }
  }
  static void add_key(YamlNode& map, const YamlNode& key) {
    if (key.kind != YamlNode::Kind::kScalar) {
      fail_at(key.position, "a key must be a word");
    }
    for (const YamlKey& earlier : map.keys) {
      if (earlier.name != key.scalar) continue;
      fail_at(key.position,
              formatted("key '{}' is given twice; first at line {}", key.scalar,
                        earlier.position.line));
    }
    map.keys.push_back({.name = key.scalar, .position = key.position});
  }

  const std::string& origin_;
  YamlNode root_{};
  std::vector<Frame> open_{};
  std::map<YAML::anchor_t, Anchored> anchors_{};
  std::size_t nodes_ = 0, documents_ = 0;
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
    fail_at(position,
            formatted("no entry {} in a list of {}", part, list.items.size()));
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
  TreeBuilder builder(origin);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    fail_at(position_of(error.mark, origin), "not YAML: " + error.msg);
  }
  YamlNode root = builder.take();
  if (root.position.file.empty()) root.position.file = origin;
  return root;
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
