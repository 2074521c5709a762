// The grammar of Jinja that chat templates use.
//
// Statements: if, for (also with a condition, and else), set (also of several
// names, of a namespace's member and of a block), macro, call, filter, with,
// generation, break, continue. Expressions: all but starred arguments.
#pragma once

#include "formats/templates/template_source.h"
#include "formats/templates/template_tree.h"

namespace llmpress {

// Throws Error(kUnsupported) with the place of what is outside this subset
// (include, extends, import, block, recursive loops, ...), and
// Error(kInvalidInput) of what is no Jinja, or nested more than 100 deep.
TemplateBody parse_template(const TemplateSource& source);

}  // namespace llmpress
