// Writes a recipe: indented "key: value" lines.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmpress {

class YamlWriter {
 public:
  void word(std::string_view key, std::string_view value);
  void text(std::string_view key, std::string_view value);  // in quotes
  // The shortest digits that read back as the same number.
  void number(std::string_view key, double value);
  void count(std::string_view key, std::uint64_t value);
  void boolean(std::string_view key, bool value);
  void texts(std::string_view key, const std::vector<std::string>& values);
  void open(std::string_view key);
  void close() { --depth_; }
  // The next line starts a list entry; its lines stand one level deeper.
  void open_entry();
  void close_entry() { --depth_; }

  const std::string& result() const { return text_; }

 private:
  void indent();

  std::string text_;
  std::size_t depth_ = 0;
  bool entry_ = false;
};

}  // namespace llmpress
