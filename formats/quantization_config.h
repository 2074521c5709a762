// What config.json's quantization_config says about each Linear.
//
// compressed-tensors: {"config_groups": {"group_0": {"targets": ["Linear"],
//   "weights": {"num_bits": 4, "type": "int", "strategy": "group", ...},
//   "input_activations": null, "format": "pack-quantized"}}, "ignore":
//   ["lm_head"]}
// A target is a module's exact name, "re:" and a regular expression that
// matches from the start of the name, or the class "Linear"; the most exact one
// wins. Hugging Face's "fp8" and "bitsandbytes" methods are read into the same
// form. What none of them can say stands in our own object "llmpress" beside
// the groups (docs/artifacts.md), which their loaders ignore.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/packed_weight.h"

namespace llmpress {

// compressed-tensors' QuantizationArgs.
struct QuantArgs {
  int bits = 8;
  bool floating = false;
  bool symmetric = true;
  bool dynamic = false;
  std::string strategy =
      "tensor";                // tensor channel group block token tensor_group
  std::size_t group_size = 0;  // of group and tensor_group
  std::size_t block_rows = 0, block_cols = 0;  // of block
  bool order_by_group = false;                 // actorder "group": has a g_idx

  bool operator==(const QuantArgs&) const = default;
};

struct LinearScheme {
  std::optional<QuantArgs> weights{}, input{};
  std::string format = "dense";

  bool operator==(const LinearScheme&) const = default;
};

// What only this program writes, for one Linear.
struct LinearExtension {
  float outlier_threshold = 0;     // ActivationQuant::outlier_threshold
  std::size_t input_hadamard = 0;  // LinearWeights::input_hadamard
  // Codes of a SparseWeight; 0: plain numbers.
  int sparse_bits = 0;
  std::size_t sparse_group_size = 0;

  bool operator==(const LinearExtension&) const = default;
};

struct QuantizationConfig {
  struct Group {
    std::vector<std::string> targets{};
    LinearScheme scheme{};
  };
  std::string method{};  // "", "compressed-tensors", "bitsandbytes", "fp8"
  std::vector<Group> groups{};
  std::vector<std::string> ignore{};
  std::map<std::string, LinearExtension, std::less<>> extensions{};
  float outlier_threshold = 0;  // bitsandbytes: llm_int8_threshold
  bool load_in_8bit = false, load_in_4bit = false;  // bitsandbytes

  // The empty scheme if no group says otherwise.
  const LinearScheme& scheme_of(std::string_view linear) const;
  const LinearExtension& extension_of(std::string_view linear) const;
};

// `config_json` is the whole of config.json. Throws Error(kInvalidInput) with
// `where` in front if the object is malformed.
QuantizationConfig parse_quantization_config(const std::string& config_json,
                                             const std::string& where);

}  // namespace llmpress
