// Files of a model's folder that an artifact takes along octet for octet:
// tokenizer, generation_config.json, chat template, licence, code.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace llmpress {

// Everything in the folder itself but weights and their indices, config.json,
// descriptions of another quantization, README.md, hidden files and what this
// program added. Of an HDF5 file, the files it carries. Nothing otherwise.
std::map<std::string, std::string> carried_files(
    const std::filesystem::path& source);

// A name that cannot lead out of a folder.
bool is_plain_file_name(std::string_view name);

}  // namespace llmpress
