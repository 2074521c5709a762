// The regular expressions that stand for modules in quantization_config.
#pragma once

#include <string_view>

namespace llmpress {

// Whether `pattern` matches `text` from its start, not necessarily to its end
// (Python's re.match). Throws Error(kInvalidInput) if the pattern is malformed
// or takes unreasonably long.
bool matches_from_start(std::string_view pattern, std::string_view text);

}  // namespace llmpress
