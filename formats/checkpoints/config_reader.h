// config.json read key by key, so that what a model's family did not ask for
// can be named: a key that nobody understood may change the function.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llmpress {

// The place that messages about config.json name: `origin` if it is a .json
// file itself, otherwise config.json within it.
std::string config_place(const std::string& origin);

// One JSON object. Every getter marks its key as read; keys that are absent or
// null give nullopt (or an empty list). Throws Error(kInvalidInput) naming the
// key for a value of the wrong type, a size that is negative or above 2^31, or
// a number that is not finite.
class ConfigReader {
 public:
  // `origin` stands in front of messages. Throws Error(kCorruptFile) if the
  // text is not a JSON object.
  static ConfigReader parse(const std::string& json_text,
                            const std::string& origin);

  const std::string& origin() const;
  bool has(std::string_view key) const;      // and is not null
  bool is_null(std::string_view key) const;  // written as null
  bool is_text(std::string_view key) const;

  std::optional<std::size_t> size(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> flag(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  // One or a list.
  std::vector<std::size_t> sizes(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;
  std::vector<std::string> texts(std::string_view key) const;
  std::optional<ConfigReader> object(std::string_view key) const;

  // Counts as read without being looked at.
  void ignore(std::string_view key) const;
  // Keys with a value (neither null nor false) that nobody read, those of
  // objects that were asked for as "rope_scaling.factor".
  std::vector<std::string> unread() const;

  [[noreturn]] void invalid(std::string_view key,
                            const std::string& wanted) const;
  [[noreturn]] void unsupported(std::string_view key,
                                const std::string& wanted) const;

 private:
  struct State;
  explicit ConfigReader(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace llmpress
