// Base64 (RFC 4648, section 4).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace llmpress {

// Empty optional for anything but groups of four digits, the last one padded.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace llmpress
