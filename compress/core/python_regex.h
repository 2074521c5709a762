// Expressions in the syntax of Python's `re`, as compressed-tensors, PEFT and
// recipes use them to name modules: `Regex::matches_start` is re.match,
// `matches_whole` re.fullmatch.
//
// What Python and PCRE2 read alike is passed on. \Z, {,n} and a [ inside a set
// mean something else to PCRE2 and are translated; what Python does not know
// (\K, \Q, (?R), (*VERB), (?|...) and the like) is refused.
#pragma once

#include <string_view>

#include "compress/core/regex.h"

namespace llmpress {

// Steps that one of `patterns` expressions may take on one name, so that all of
// them together take milliseconds: an ordinary one takes tens.
std::uint32_t steps_per_pattern(std::size_t patterns);

// Throws Error(options.code) with options.place in front.
Regex python_regex(std::string_view pattern, RegexOptions options);

}  // namespace llmpress
