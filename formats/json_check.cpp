#include "formats/json_check.h"

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "compress/core/error.h"

namespace llmpress {
namespace {

using json = nlohmann::json;
constexpr std::size_t kMaxDepth = 100;

class Events : public nlohmann::json_sax<json> {
 public:
  explicit Events(const std::string& where) : where_(where) {}
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
    if (!keys_.back().insert(name).second) fail("duplicate key '" + name + "'");
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    fail("not JSON at octet " + std::to_string(position));
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kCorruptFile, where_ + ": " + what);
  }
  bool inside() const {
    if (keys_.empty()) fail("not a JSON object");
    return true;
  }
  bool enter() {
    if (keys_.size() == kMaxDepth) {
      fail("nested more than " + std::to_string(kMaxDepth) + " deep");
    }
    keys_.emplace_back();
    return true;
  }
  bool leave() {
    keys_.pop_back();
    return true;
  }

  const std::string& where_;
  std::vector<std::unordered_set<std::string>> keys_{};
};

}  // namespace

void check_json_object(std::string_view text, const std::string& where) {
  // The parser takes a NUL for the end of its input.
  if (text.find('\0') != std::string_view::npos) {
    throw Error(ErrorCode::kCorruptFile, where + ": contains a NUL");
  }
  Events events(where);
  json::sax_parse(text.begin(), text.end(), &events);
}

}  // namespace llmpress
