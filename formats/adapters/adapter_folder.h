// The folder of an adapter, whatever its kind: adapter_config.json, whose
// `peft_type` says the kind, and adapter_model.safetensors.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "formats/containers/tensor_io.h"

namespace llmpress {

enum class AdapterFormat {
  kLora,        // LoRA, rsLoRA, DoRA: peft_adapter.h
  kPrefix,      // keys and values before the text: virtual_tokens.h
  kPrompt,      // rows of the stream before the text: virtual_tokens.h
  kBottleneck,  // bottleneck_adapter.h; no format of PEFT
  kDifference,  // difference_adapter.h; no format of PEFT
};

// "LORA", "PREFIX_TUNING", ...
std::string_view peft_type_of(AdapterFormat format);

// Throws Error(kUnsupported) naming a type that is not known here, kCorruptFile
// for a file that is no such configuration.
AdapterFormat read_adapter_format(const std::filesystem::path& directory);

// adapter_model.safetensors, or its shards. Throws Error(kUnsupported) for a
// pickle, kIo if nothing is there.
std::unique_ptr<TensorReader> open_adapter_tensors(
    const std::filesystem::path& directory);

// Appears whole or not at all, with `files` by name beside it; what `files` has
// for llmpress.json is written with the mark of replaceable.h.
void write_adapter_folder(const std::filesystem::path& directory,
                          const std::string& config,
                          std::span<const NamedTensor> tensors,
                          const std::map<std::string, std::string>& files);

}  // namespace llmpress
