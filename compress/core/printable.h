// Text from files and users as it may be shown: what steers a terminal or
// turns the reading order is written out.
#pragma once

#include <string>
#include <string_view>

namespace llmpress {

// Control characters (C0, DEL, C1), line separators and marks of direction come
// as \u001b, octets that are not UTF-8 as \xff. Characters of `kept` stay.
std::string printable(std::string_view text, std::string_view kept = "");

}  // namespace llmpress
