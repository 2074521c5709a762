// What a file is that stands where a file of a model is wanted: told by its
// first octets, for messages.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace llmpress {

// "a git-lfs pointer, not the file itself: ...", or empty if nothing is known.
std::string describe_foreign(std::span<const std::byte> head);
std::string describe_foreign(const std::filesystem::path& file);

// Why a model folder has none of the weight files that are read: names the ones
// it has instead and what to do.
std::string describe_missing_weights(const std::filesystem::path& folder);

}  // namespace llmpress
