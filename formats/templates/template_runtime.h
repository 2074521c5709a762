// What rendering may take, and what it knows of the world.
#pragma once

#include <cstddef>
#include <ctime>
#include <string>
#include <string_view>

#include "formats/templates/template_value.h"

namespace llmpress {

// Steps are evaluated expressions and statements, and 16 bytes of text or 16
// items of lists that are gone through: a template from anywhere ends in bounded
// time and memory.
class TemplateRuntime {
 public:
  explicit TemplateRuntime(const std::tm& now, std::size_t most_steps)
      : now_(now), steps_left_(most_steps) {}

  const std::tm& now() const { return now_; }
  // Throws TemplateFault if there are no more.
  void step(std::size_t count = 1);
  // The same, and if a text becomes longer than 16 MiB.
  void append(std::string& text, std::string_view more);
  // Of a value that an operation goes through, or has made.
  void go_through(const TemplateValue& value) { step(value.weight() / 16 + 1); }

 private:
  std::tm now_;
  std::size_t steps_left_;
};

}  // namespace llmpress
