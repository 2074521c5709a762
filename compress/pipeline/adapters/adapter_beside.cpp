#include "compress/pipeline/adapters/adapter_beside.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/pipeline/adapters/adapter_merge.h"
#include "compress/pipeline/adapters/beside_kernels.h"
#include "compress/pipeline/adapters/tokens_beside.h"
#include "formats/adapters/adapter_folder.h"

namespace llmpress {
namespace {

LoraOperator operator_of(const AdaptedModule& module, ConstMatrixView W,
                         ThreadPool& pool) {
  std::vector<LoraOperator> operators;
  for (const AdapterPart& part : module.parts) {
    if (!part.module->has_factors()) continue;
    try {
      operators.push_back(
          make_operator(delta_of(*part.module), part.weight, W, pool));
    } catch (const Error& e) {
      refuse_part(part, module.name, e.what());
    }
  }
  return sum_of(std::move(operators));
}

Bottleneck bottleneck_of(const AdapterPart& part, const std::string& name) {
  const PeftBottleneck& read = *part.module->bottleneck;
  const auto* const row = std::ranges::find(
      kBottleneckActivations, read.activation, &Named<Activation>::name);
  if (row == std::end(kBottleneckActivations)) {
    refuse_part(part, name,
                "non_linearity '" + read.activation +
                    "' is not known here: wanted relu, gelu or silu");
  }
  return {.down = read.down,
          .down_bias = read.down_bias,
          .up = read.up,
          .up_bias = read.up_bias,
          .activation = row->value};
}

class Companion : public WeightCompanion {
 public:
  Companion(const AdapterSet& set, std::vector<BlockPrefix> prefix,
            const Checkpoint& checkpoint, Isa isa, ThreadPool& pool)
      : isa_(isa), pool_(&pool), prefix_(std::move(prefix)) {
    for (const AdaptedModule& module : set.modules) {
      if (!module.runs_beside()) continue;
      if (module.place == ModulePlace::kEmbedding) {
        const MatrixF W =
            module.has_dora() ? table(checkpoint, module.name) : MatrixF();
        embedding_ = operator_of(module, W.view(), pool);
      } else {
        modules_[module.name] = module;
      }
    }
  }

  std::unique_ptr<LinearKernel> beside(
      const std::string& name, const LinearWeights& weights,
      std::unique_ptr<LinearKernel> kernel) const override {
    const auto found = modules_.find(name);
    if (found == modules_.end()) return kernel;
    const AdaptedModule& module = found->second;
    if (weights.input_hadamard != 0) {
      fail(ErrorCode::kUnsupported,
           "'{}' is rotated: the adapter was trained on inputs that are not; "
           "merge it before rotating",
           name);
    }
    if (module.has_factors()) {
      kernel = beside_factors(module, weights, std::move(kernel));
    }
    for (const AdapterPart& part : module.parts) {
      if (part.module->difference.empty()) continue;
      kernel = with_difference(std::move(kernel), part.module->difference,
                               part.weight);
    }
    for (const AdapterPart& part : module.parts) {
      if (!part.module->bottleneck) continue;
      kernel =
          with_bottleneck(std::move(kernel), bottleneck_of(part, name), isa_);
    }
    return kernel;
  }

  std::vector<BlockPrefix> prefix() const override { return prefix_; }

  void change_embedding(std::span<const TokenId> tokens,
                        MatrixView<float> X) const override {
    if (embedding_) apply_embedding_in_place(*embedding_, tokens, X, *pool_);
  }

 private:
  std::unique_ptr<LinearKernel> beside_factors(
      const AdaptedModule& module, const LinearWeights& weights,
      std::unique_ptr<LinearKernel> kernel) const {
    const MatrixF W =
        module.has_dora() ? dequantize(weights.weight) : MatrixF();
    LoraOperator lora = operator_of(module, W.view(), *pool_);
    if (!lora.base_factors.empty() && !weights.bias.empty()) {
      // The factors scale W x and leave the Linear's own bias alone.
      LinearWeights bare = weights;
      bare.bias.clear();
      kernel = make_linear_kernel(bare, isa_);
      lora.bias.resize(weights.bias.size());
      for (std::size_t o = 0; o < lora.bias.size(); ++o) {
        lora.bias[o] += weights.bias[o];
      }
    }
    return with_lora(std::move(kernel), std::move(lora));
  }

  static MatrixF table(const Checkpoint& checkpoint, const std::string& name) {
    return dequantize(checkpoint.read_linear(name).weight);
  }

  Isa isa_;
  ThreadPool* pool_;
  std::map<std::string, AdaptedModule> modules_;
  std::optional<LoraOperator> embedding_;
  std::vector<BlockPrefix> prefix_;
};

// Adapters by what they are.
struct SortedAdapters {
  std::vector<WeightedAdapter> changes{};  // of weights
  std::optional<WeightedAdapter> tokens{};
};

SortedAdapters sorted(const std::vector<WeightedAdapter>& adapters) {
  SortedAdapters result;
  for (const WeightedAdapter& adapter : adapters) {
    const AdapterFormat format = read_adapter_format(adapter.path);
    const bool prompt = format == AdapterFormat::kPrompt;
    if (!prompt && format != AdapterFormat::kPrefix) {
      result.changes.push_back(adapter);
      continue;
    }
    if (result.tokens || (prompt && adapters.size() > 1)) {
      fail(ErrorCode::kUnsupported, "{}: {} does not go with {}", adapter.path,
           peft_type_of(format),
           prompt ? "other adapters" : "other virtual tokens");
    }
    if (adapter.weight != 1) {
      fail(ErrorCode::kInvalidArgument,
           "{}: {} has no scale: found {}, wanted 1", adapter.path,
           peft_type_of(format), adapter.weight);
    }
    result.tokens = adapter;
  }
  return result;
}

}  // namespace

AdaptersBeside keep_beside(const Checkpoint& base, const Architecture& arch,
                           const std::vector<WeightedAdapter>& adapters,
                           Isa isa, ThreadPool& pool) {
  const SortedAdapters by_kind = sorted(adapters);
  const AdapterSet set = read_adapters(base, arch, by_kind.changes);
  AdapterMerge replaced = replace_modules(base, arch, set, pool);
  AdaptersBeside result{.modules = set.modules.size(), .notes = set.notes};
  result.notes.insert(result.notes.end(), replaced.notes.begin(),
                      replaced.notes.end());
  result.checkpoint = overlay(base, std::move(replaced.edits));
  std::vector<BlockPrefix> prefix;
  if (by_kind.tokens) {
    prefix = tokens_beside(base, arch, by_kind.tokens->path, isa, pool);
  }
  if (!set.modules.empty() || !prefix.empty()) {
    result.companion = std::make_shared<Companion>(
        set, std::move(prefix), *result.checkpoint, isa, pool);
  }
  return result;
}

}  // namespace llmpress
