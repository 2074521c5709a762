// A family of decoders: one file that reads its config.json and writes the
// programs of its blocks. families.cpp is the table of them.
#pragma once

#include <span>
#include <string_view>

#include "compress/model/architecture.h"
#include "formats/config_reader.h"

namespace llmpress {

struct Family {
  std::string_view model_type;
  // Fills in all of `arch` but model_type, vocabulary, bos and eos. Throws as
  // parse_architecture() does.
  void (*describe)(const ConfigReader& config, Architecture& arch);
};

std::span<const Family> families();

// One a file of this folder.
void describe_llama(const ConfigReader& config, Architecture& arch);
void describe_mistral(const ConfigReader& config, Architecture& arch);
void describe_qwen2(const ConfigReader& config, Architecture& arch);
void describe_qwen3(const ConfigReader& config, Architecture& arch);

}  // namespace llmpress
