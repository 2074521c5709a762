// Filters (value | name) and tests (value is name) of Jinja, and its global
// functions.
#pragma once

#include <string>

#include "formats/templates/template_runtime.h"

namespace llmpress {

// Filters: abs, attr, capitalize, count, d, default, dictsort, e, escape, first,
// float, indent, int, items, join, last, length, list, lower, map, max, min,
// reject, rejectattr, replace, reverse, round, safe, select, selectattr, sort,
// string, sum, title, tojson, trim, unique, upper, wordcount.
bool has_template_filter(const std::string& name);
TemplateValue apply_template_filter(TemplateRuntime& runtime,
                                    const std::string& name,
                                    const TemplateValue& value,
                                    const TemplateArguments& arguments);

// Tests: boolean, callable, defined, divisibleby, eq, even, false, float, ge, gt,
// in, integer, iterable, le, lower, lt, mapping, ne, none, number, odd, sameas,
// sequence, string, true, undefined, upper, and what these are also called.
bool has_template_test(const std::string& name);
bool apply_template_test(TemplateRuntime& runtime, const std::string& name,
                         const TemplateValue& value,
                         const TemplateArguments& arguments);

// range, namespace, dict, raise_exception, strftime_now, joiner; an undefined
// value for any other name.
TemplateValue template_function(TemplateRuntime& runtime,
                                const std::string& name);

}  // namespace llmpress
