// Operators of Python on values. These throw TemplateFault where Python has no
// meaning for the operands, and where a whole number needs more than 64 bits.
#pragma once

#include "formats/templates/template_runtime.h"
#include "formats/templates/template_tree.h"

namespace llmpress {

// All but kAnd and kOr, which do not evaluate both operands.
TemplateValue apply_operator(TemplateRuntime& runtime, BinaryOperator op,
                             const TemplateValue& left,
                             const TemplateValue& right);
TemplateValue apply_operator(UnaryOperator op, const TemplateValue& operand);
bool compare(TemplateRuntime& runtime, ComparisonOperator op,
             const TemplateValue& left, const TemplateValue& right);

}  // namespace llmpress
