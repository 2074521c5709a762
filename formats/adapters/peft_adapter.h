// A PEFT adapter folder: adapter_config.json and adapter_model.safetensors (or
// its shards, or adapter_model.bin of torch.save). Tensors are "base_model.model.<module path>." followed by
//
//   lora_A.weight [r, in], lora_B.weight [out, r], lora_B.bias [out]
//   lora_embedding_A [r, vocab], lora_embedding_B [dim, r]
//   lora_magnitude_vector [out]   (DoRA)
//   weight, bias                  (modules_to_save; bias "all" or "lora_only")
//
// The adapter changes a module's weight W [out, in] by scaling B A, scaling =
// alpha / r, or alpha / sqrt(r) for rsLoRA, with r and alpha replaced by the
// first entry of rank_pattern and alpha_pattern whose key K matches the module
// path as (.*\.)?(K)$. What would change that meaning is refused, never
// ignored.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/core/matrix.h"
#include "compress/core/sparse_difference.h"
#include "formats/containers/tensor_io.h"
#include "formats/linears/module_pattern.h"

namespace llmpress {

struct PeftConfig {
  std::string base_model{};  // base_model_name_or_path, as written
  std::size_t rank = 8;
  double alpha = 8;
  bool use_rslora = false;
  bool use_dora = false;
  bool lora_bias = false;  // every lora_B has a bias
  // The training base stored its weights [in, out] (GPT-2's Conv1D). PEFT heeds
  // it for such modules alone, so it does not count for a Linear.
  bool fan_in_fan_out = false;
  std::string bias = "none";                  // "none", "all" or "lora_only"
  std::vector<std::string> target_modules{};  // one item if a regex
  std::vector<std::string> modules_to_save{};
  PatternValues<std::size_t> rank_pattern{};
  PatternValues<double> alpha_pattern{};

  // Of the module at `path`.
  std::size_t rank_of(const std::string& path) const;
  double alpha_of(const std::string& path) const;
  double scaling_of(const std::string& path) const;
};

// A tensor that takes the place of the base's.
struct PeftReplacement {
  std::vector<std::size_t> shape{};
  std::vector<float> values{};
};

// A small MLP behind a Linear (bottleneck_adapter.h).
struct PeftBottleneck {
  MatrixF down{}, up{};  // [size, out], [out, size]
  std::vector<float> down_bias{}, up_bias{};
  std::string activation{};  // as the file calls it
};

// What an adapter does to one module; at least one of low-rank factors, weight
// and bias is there, or else one of difference and bottleneck. `weight` and `bias` replace the base's first, then the
// factors add to them.
struct PeftModule {
  MatrixF A{};  // [r, in]; of an embedding [r, vocab]; empty: no factors
  MatrixF B{};  // [out, r]; of an embedding [dim, r]
  double scaling = 1;
  bool embedding = false;  // the weight [vocab, dim] changes by scaling (B A)^T
  std::vector<float>
      lora_bias{};  // [out]: the bias changes by scaling times it
  std::vector<float> magnitude{};  // [out], or [dim] of an embedding: DoRA
  std::optional<PeftReplacement> weight{};
  std::optional<PeftReplacement> bias{};
  SparseDifference difference{};  // added to the weight; empty: none
  std::optional<PeftBottleneck> bottleneck{};

  bool has_factors() const { return !A.empty(); }
};

struct PeftAdapter {
  PeftConfig config{};
  std::map<std::string, PeftModule> modules{};  // by module path in the base
};

// `where` stands in front of messages. Throws Error(kUnsupported) that names
// the key for what is not plain LoRA, rsLoRA or DoRA (QALoRA, replicated
// layers, expert parameters, trainable tokens, an initialization that changed
// the base, a key that is not known and not off), kCorruptFile for a value of a
// wrong type, kInvalidInput for one out of range.
PeftConfig parse_peft_config(std::string_view text, const std::string& where);

// Everything in float32. Throws as above, and Error(kInvalidInput) naming the
// tensor for half a pair, a rank that is not the configuration's, shapes that
// disagree, NaN or infinity. Whether the modules exist in the base and fit is
// for the caller to check.
PeftAdapter read_peft_adapter(const std::filesystem::path& directory);
// The same for tensors that are open already.
PeftAdapter read_peft_tensors(PeftConfig config, const TensorReader& tensors);

struct PeftWriteOptions {
  std::string base_model{};   // base_model_name_or_path
  DType dtype = DType::kF32;  // of the tensors: F32, F16 or BF16
  // scaling = alpha / sqrt(r) instead of alpha / r, and use_rslora says so.
  bool rank_stabilized = false;
  std::map<std::string, std::string> files{};  // by name, beside the adapter
};

// A folder that PEFT loads; appears whole or not at all. The commonest rank
// becomes r, others stand in rank_pattern, and alpha likewise. What `files` has
// for llmpress.json is written with the mark of replaceable.h.
// Throws Error(kInvalidArgument) if shapes disagree or a value is not finite.
void write_peft_adapter(const std::filesystem::path& directory,
                        const std::map<std::string, PeftModule>& modules,
                        const PeftWriteOptions& options);

}  // namespace llmpress
