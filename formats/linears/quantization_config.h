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
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/packed_weight.h"
#include "compress/core/regex.h"

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

// The format of Linears that only this program reads.
inline constexpr std::string_view kOwnFormat = "llmpress";

struct LinearScheme {
  std::optional<QuantArgs> weights{}, input{};
  std::string format = "dense";

  bool operator==(const LinearScheme&) const = default;
};

// What only this program writes, for one Linear.
struct LinearExtension {
  float outlier_threshold = 0;     // ActivationQuant::outlier_threshold
  std::size_t input_hadamard = 0;  // LinearWeights::input_hadamard
  bool sparse_2of4 = false;        // SparseWeight::pattern
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
  std::optional<QuantArgs> kv_cache{};  // kv_cache_scheme
  std::vector<Group> groups{};
  std::vector<std::string> ignore{};
  std::map<std::string, LinearExtension, std::less<>> extensions{};
  float int8_threshold = 0;            // bitsandbytes: llm_int8_threshold
  bool embeddings = false;             // the class "Linear" means them too
  std::string input_scales = "float";  // fp8: scale_fmt

  // `ignore` and the groups' targets by what they are: module names, and "re:"
  // expressions in order; filled by index(), which throws
  // Error(kInvalidInput, "<where>: ...") for an expression that is none.
  std::map<std::string, std::size_t, std::less<>> group_of_linear{};
  std::vector<std::pair<Regex, std::size_t>> group_of_pattern{};
  std::set<std::string, std::less<>> ignored_names{};
  std::vector<Regex> ignored_patterns{};
  void index(const std::string& where);

  // Sentences about what is run otherwise than declared.
  std::vector<std::string> notes(const std::string& where) const;

  // The empty scheme if no group says otherwise. Throws Error(kInvalidInput) if
  // an expression takes too many steps.
  const LinearScheme& scheme_of(std::string_view linear) const;
  const LinearExtension& extension_of(std::string_view linear) const;
};

// Whether a module of this path is an embedding by its name ("embed_tokens",
// "wte"): its class is not Linear, so that only a target of its own names it.
bool is_embedding_name(std::string_view module);

// The head: a Linear to transformers, a class of its own to vLLM, which finds
// its scheme only in a group that names it.
bool is_head_name(std::string_view module);

// `config_json` is the whole of config.json. Throws Error(kInvalidInput) with
// `where` in front if the object is malformed, kUnsupported for a quant_method
// that is not read.
QuantizationConfig parse_quantization_config(const std::string& config_json,
                                             const std::string& where);

// The object "quantization_config" in compressed-tensors' words for Linears
// with these schemes and extensions, by name; `others` are Linears that stay
// dense. Empty if there is nothing to say.
struct DescribedLinear {
  LinearScheme scheme{};
  LinearExtension extension{};
};
// What loaders call modules is their path in the model's class, which is not
// always what stands in front of their tensors. Both are written.
struct ModuleNames {
  // Of files -> of the class: modules, and prefixes that end in '.'.
  std::map<std::string, std::string> of_class{};
  std::vector<std::string> ignore{};  // patterns of modules that stay dense

  // By the module's own entry or that of a prefix, else as in the files.
  std::string name_in_class(const std::string& name) const;
};
std::string compressed_tensors_config(
    const std::map<std::string, DescribedLinear>& linears,
    const std::vector<std::string>& others, const ModuleNames& modules = {});

// `config_json` with the object `description`, of the file `where`, as its
// quantization_config; of `method` unless it says another. Throws
// Error(kCorruptFile) if either is no JSON object.
std::string with_described_quantization(const std::string& config_json,
                                        std::string_view method,
                                        const std::string& description,
                                        const std::string& where);

// config.json of an artifact: `config_json` with `quantization_config` (an
// object as text, or empty) in place of what was there, whose kv_cache_scheme
// stays. Throws Error(kUnsupported) if the new one cannot say it.
std::string with_quantization_config(const std::string& config_json,
                                     const std::string& quantization_config);

}  // namespace llmpress
