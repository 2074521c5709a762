#include "formats/files/json_reader.h"

#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/files/json_check.h"

namespace llmpress {
namespace {

using Json = nlohmann::json;

const Json& json_of(const void* node) {
  return *static_cast<const Json*>(node);
}

std::string child_pointer(const std::string& parent, std::string_view key) {
  std::string pointer = parent + "/";
  for (const char c : key) {  // RFC 6901, section 3
    if (c == '~') {
      pointer += "~0";
    } else if (c == '/') {
      pointer += "~1";
    } else {
      pointer += c;
    }
  }
  return pointer;
}

// A value as it stands in the file, cut to the length of a message.
std::string shown(const Json& json) {
  if (json.is_object()) return "an object";
  if (json.is_array()) return "an array";
  std::string text =
      json.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace

bool JsonView::is_null() const { return json_of(node_).is_null(); }
bool JsonView::is_string() const { return json_of(node_).is_string(); }
bool JsonView::is_array() const { return json_of(node_).is_array(); }
bool JsonView::is_object() const { return json_of(node_).is_object(); }

const std::string& JsonView::text() const {
  if (!is_string()) wrong_type("a string");
  return json_of(node_).get_ref<const std::string&>();
}

bool JsonView::boolean() const {
  if (!json_of(node_).is_boolean()) wrong_type("true or false");
  return json_of(node_).get<bool>();
}

double JsonView::number() const {
  if (!json_of(node_).is_number()) wrong_type("a number");
  return json_of(node_).get<double>();
}

std::uint64_t JsonView::natural(std::uint64_t largest) const {
  const Json& json = json_of(node_);
  if (!json.is_number_unsigned()) wrong_type("a whole number");
  const auto value = json.get<std::uint64_t>();
  if (value > largest) {
    corrupt(formatted("found {}, wanted at most {}", value, largest));
  }
  return value;
}

std::vector<JsonView> JsonView::items() const {
  if (!is_array()) wrong_type("an array");
  std::vector<JsonView> views;
  views.reserve(json_of(node_).size());
  for (const Json& item : json_of(node_)) {
    views.emplace_back(&item, origin_,
                       formatted("{}/{}", pointer_, views.size()));
  }
  return views;
}

std::vector<std::pair<std::string, JsonView>> JsonView::members() const {
  if (!is_object()) wrong_type("an object");
  std::vector<std::pair<std::string, JsonView>> views;
  views.reserve(json_of(node_).size());
  for (const auto& [key, value] : json_of(node_).items()) {
    views.emplace_back(key,
                       JsonView(&value, origin_, child_pointer(pointer_, key)));
  }
  return views;
}

JsonView JsonView::at(std::string_view member) const {
  if (!is_object()) wrong_type("an object");
  const auto found = json_of(node_).find(member);
  if (found == json_of(node_).end()) {
    corrupt(formatted("member '{}' is missing", member));
  }
  return {&*found, origin_, child_pointer(pointer_, member)};
}

std::optional<JsonView> JsonView::find(std::string_view member) const {
  if (!is_object()) wrong_type("an object");
  const auto found = json_of(node_).find(member);
  if (found == json_of(node_).end() || found->is_null()) return std::nullopt;
  return JsonView(&*found, origin_, child_pointer(pointer_, member));
}

bool JsonView::bool_or(std::string_view member, bool otherwise) const {
  const auto view = find(member);
  return view ? view->boolean() : otherwise;
}

std::string JsonView::text_or(std::string_view member,
                              std::string otherwise) const {
  const auto view = find(member);
  return view ? view->text() : otherwise;
}

std::string JsonView::place() const {
  return *origin_ + ": " + (pointer_.empty() ? "/" : pointer_);
}

void JsonView::corrupt(const std::string& what) const {
  fail(ErrorCode::kCorruptFile, "{}: {}", place(), what);
}

void JsonView::unsupported(const std::string& what) const {
  fail(ErrorCode::kUnsupported, "{}: {}", place(), what);
}

void JsonView::wrong_type(const char* wanted) const {
  corrupt("found " + shown(json_of(node_)) + ", wanted " + wanted);
}

struct JsonDocument::Tree {
  Json json{};
  std::string origin{};
};

JsonDocument::JsonDocument(std::string_view text, std::string origin)
    : tree_(std::make_unique<Tree>()) {
  tree_->origin = std::move(origin);
  check_json_object(text, tree_->origin);
  try {
    tree_->json = Json::parse(text);
  } catch (const Json::exception& error) {
    fail(ErrorCode::kCorruptFile, "{}: not JSON: {}", tree_->origin,
         error.what());
  }
}

JsonDocument::~JsonDocument() = default;

JsonView JsonDocument::root() const {
  return {&tree_->json, &tree_->origin, ""};
}

}  // namespace llmpress
