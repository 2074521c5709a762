#include "formats/templates/template_runtime.h"

namespace llmpress {

void TemplateRuntime::step(std::size_t count) {
  if (count > steps_left_) {
    throw TemplateFault("the template takes more steps than it may");
  }
  steps_left_ -= count;
}

void TemplateRuntime::append(std::string& text, std::string_view more) {
  constexpr std::size_t kLongest = 16u << 20;
  if (more.size() > kLongest - text.size()) {
    throw TemplateFault("a text of more than 16 MiB");
  }
  step(more.size() / 16 + 1);
  text += more;
}

}  // namespace llmpress
