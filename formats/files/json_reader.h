// Read-only JSON whose every access is checked: a missing member, a wrong type
// or a number out of range throws Error(kCorruptFile) that names the place as a
// JSON pointer (RFC 6901):
//   tokenizer.json: /model/vocab/the: found "x", wanted a whole number
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llmpress {

// One value of a JsonDocument, which must outlive it.
class JsonView {
 public:
  JsonView(const void* node, const std::string* origin, std::string pointer)
      : node_(node), origin_(origin), pointer_(std::move(pointer)) {}

  bool is_null() const;
  bool is_string() const;
  bool is_array() const;
  bool is_object() const;

  const std::string& text() const;
  bool boolean() const;
  double number() const;
  std::uint64_t natural(std::uint64_t largest) const;  // 0..largest
  std::vector<JsonView> items() const;                 // of an array
  std::vector<std::pair<std::string, JsonView>> members() const;

  JsonView at(std::string_view member) const;
  // Empty where the member is missing or null.
  std::optional<JsonView> find(std::string_view member) const;
  bool bool_or(std::string_view member, bool otherwise) const;
  std::string text_or(std::string_view member, std::string otherwise) const;

  std::string place() const;  // "tokenizer.json: /model/type"
  [[noreturn]] void corrupt(const std::string& what) const;
  [[noreturn]] void unsupported(const std::string& what) const;

 private:
  [[noreturn]] void wrong_type(const char* wanted) const;

  const void* node_;
  const std::string* origin_;
  std::string pointer_;
};

class JsonDocument {
 public:
  // `origin` names the file in messages. Throws Error(kCorruptFile) if `text`
  // is not one JSON object in UTF-8, or has a duplicate key.
  JsonDocument(std::string_view text, std::string origin);
  ~JsonDocument();
  JsonDocument(const JsonDocument&) = delete;
  JsonDocument& operator=(const JsonDocument&) = delete;

  JsonView root() const;

 private:
  struct Tree;
  std::unique_ptr<Tree> tree_;
};

}  // namespace llmpress
