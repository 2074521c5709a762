// What every JSON file from outside must pass before it is used.
#pragma once

#include <string>
#include <string_view>

namespace llmpress {

// `text` is one JSON object without duplicate keys, nested at most 100 deep (so
// that code that walks it may recurse). Throws Error(kCorruptFile, "<where>:
// ...").
void check_json_object(std::string_view text, const std::string& where);

}  // namespace llmpress
