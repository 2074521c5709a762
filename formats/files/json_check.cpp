#include "formats/files/json_check.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <unordered_set>
#include <vector>

#include "compress/core/formatted.h"
#include "formats/files/foreign_file.h"

namespace llmpress {
namespace {

using json = nlohmann::json;
constexpr std::size_t kMaxDepth = 100;

class Events : public nlohmann::json_sax<json> {
 public:
  Events(std::string_view text, const std::string& where)
      : text_(text), where_(where) {}
  bool null() override { return inside(); }
  bool boolean(bool) override { return inside(); }
  bool number_integer(number_integer_t) override { return inside(); }
  bool number_unsigned(number_unsigned_t) override { return inside(); }
  bool number_float(number_float_t, const string_t&) override {
    return inside();
  }
  bool string(string_t&) override { return inside(); }
  bool binary(binary_t&) override { return inside(); }
  bool start_object(std::size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool start_array(std::size_t) override {
    inside();
    return enter();
  }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second)
      refuse("duplicate key '" + name + "'");
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    refuse(formatted("not JSON at octet {}{}", position, place_of(position)));
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail(ErrorCode::kCorruptFile, "{}: {}", where_, what);
  }
  // Of the octet before which the parser stopped, counted from 1.
  std::string place_of(std::size_t position) const {
    const std::string_view read = text_.substr(
        0, std::min(text_.size(), std::max<std::size_t>(position, 1) - 1));
    const std::size_t newline = read.rfind('\n');
    const std::size_t column = newline == std::string_view::npos
                                   ? read.size()
                                   : read.size() - newline - 1;
    return formatted(" (line {}, column {})",
                     1 + std::ranges::count(read, '\n'), column + 1);
  }
  bool inside() const {
    if (keys_.empty()) refuse("not a JSON object");
    return true;
  }
  bool enter() {
    if (keys_.size() == kMaxDepth) {
      refuse(formatted("nested more than {} deep", kMaxDepth));
    }
    keys_.emplace_back();
    return true;
  }
  bool leave() {
    keys_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::string& where_;
  std::vector<std::unordered_set<std::string>> keys_{};
};

}  // namespace

void check_json_object(std::string_view text, const std::string& where) {
  // The parser takes a NUL for the end of its input.
  if (text.find('\0') != std::string_view::npos) {
    fail(ErrorCode::kCorruptFile, "{}: contains a NUL", where);
  }
  const std::string foreign = describe_foreign(std::as_bytes(std::span(text)));
  if (!foreign.empty()) {
    fail(ErrorCode::kCorruptFile, "{}: is {}", where, foreign);
  }
  Events events(text, where);
  json::sax_parse(text.begin(), text.end(), &events);
}

}  // namespace llmpress
