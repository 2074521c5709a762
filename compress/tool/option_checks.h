// What the value of an option must be, as checks for CLI11, whose own
// conversions take -1 for 2^64 - 1, an empty text for 0 and NaN for in range.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace llmpress {

// "" where the text will do, else why not.
using OptionCheck = std::function<std::string(const std::string&)>;

inline constexpr std::uint64_t kMostOfAnything = 1'000'000'000'000;

OptionCheck whole_number(std::uint64_t least = 0,
                         std::uint64_t most = kMostOfAnything);
OptionCheck any_seed();  // 0 to 2^64 - 1
OptionCheck real_number(double least, double most);
OptionCheck not_empty();
// A size in bytes above 0, such as 8GiB; stands before CLI11's conversion.
OptionCheck positive_size();

}  // namespace llmpress
