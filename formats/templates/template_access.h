// Parts of values: object.name, object[index], object[begin:end:step].
#pragma once

#include <string>

#include "formats/templates/template_runtime.h"
#include "formats/templates/template_text.h"

namespace llmpress {

// A method, else a member: as Jinja has it, `message.items` is the method. An
// undefined value if there is neither; TemplateFault of one that is undefined.
TemplateValue attribute_of(TemplateRuntime& runtime,
                           const TemplateValue& object,
                           const std::string& name);
// A member, else a method or attribute of that name.
TemplateValue item_of(TemplateRuntime& runtime, const TemplateValue& object,
                      const TemplateValue& index);
TemplateValue slice_of(TemplateRuntime& runtime, const TemplateValue& object,
                       const TemplateSlice& slice);
// Of filters: "a.b.0" is a path.
TemplateValue path_of(TemplateRuntime& runtime, const TemplateValue& object,
                      const TemplateValue& path);

// Python's `in`.
bool contains(TemplateRuntime& runtime, const TemplateValue& container,
              const TemplateValue& value);
std::size_t length_of(const TemplateValue& value);

}  // namespace llmpress
