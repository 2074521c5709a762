// Files of a model's folder that an artifact takes along octet for octet:
// tokenizer, generation_config.json, chat templates, licence, code.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace llmpress {

// By path relative to the folder, everything but weights and their indices,
// config.json and params.json, descriptions of another quantization, README.md, hidden files,
// files above 256 MiB and what this program added; and of its sub-folders those
// that are not hidden, no cache or link, and hold neither weights nor more than
// 256 MiB, whole. Of an HDF5 file, the files it carries: throws
// Error(kCorruptFile) for a name that leads out of a folder.
std::map<std::string, std::string> carried_files(
    const std::filesystem::path& source);

// The name of a carried file in an HDF5 file, where '/' would make groups: '\\'
// stands for it, which no carried file has in its name.
std::string carried_name_in_hdf5(std::string file);

// A name that cannot lead out of a folder.
bool is_plain_file_name(std::string_view name);

}  // namespace llmpress
