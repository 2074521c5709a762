#include "compress/pipeline/adapters/adapter_merge.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/model/model_check.h"

namespace llmpress {
namespace {

// All that the adapters do to one weight.
class ModuleMerge {
 public:
  ModuleMerge(AdaptedModule module, CombineConfig config, ThreadPool& pool)
      : module_(std::move(module)), config_(config), pool_(&pool) {}

  void apply(MatrixF& W, std::vector<float>* bias) const {
    try {
      for (const AdapterPart& part : module_.parts) {
        if (part.module->weight) {
          std::ranges::copy(part.module->weight->values, W.data().begin());
        }
      }
      merge_factors(W);
      for (const AdapterPart& part : module_.parts) {
        if (part.module->difference.empty()) continue;
        add_in_place(part.module->difference, part.weight, W.view());
      }
      if (bias != nullptr) merge_biases(*bias);
    } catch (const Error& e) {
      fail(e.code(), "module '{}': {}", module_.name, e.what());
    }
  }

 private:
  void merge_factors(MatrixF& W) const {
    std::vector<LoraDelta> deltas;
    std::vector<double> weights;
    for (const AdapterPart& part : module_.parts) {
      if (!part.module->has_factors()) continue;
      deltas.push_back(delta_of(*part.module));
      weights.push_back(part.weight);
    }
    if (deltas.empty()) return;
    if (combines_factors(config_.method)) {
      const LoraDelta one =
          combine_factors(deltas, weights, config_, module_.name, *pool_);
      return merge_in_place(one, 1, W.view(), *pool_);
    }
    // A DoRA's change depends on the weight that it finds: of several adapters
    // each is to find the base's.
    const bool at_once = config_.method != CombineMethod::kCat ||
                         (module_.has_dora() && deltas.size() > 1);
    if (at_once) return add_combined(deltas, weights, W);
    for (std::size_t t = 0; t < deltas.size(); ++t) {
      merge_in_place(deltas[t], weights[t], W.view(), *pool_);
    }
  }

  void add_combined(std::span<const LoraDelta> deltas,
                    std::span<const double> weights, MatrixF& W) const {
    std::vector<MatrixF> changes;
    for (const LoraDelta& delta : deltas) {
      changes.push_back(change_of(delta, W.view(), *pool_));
    }
    const MatrixF change = combine_changes(std::move(changes), weights, config_,
                                           module_.name, *pool_);
    for (std::size_t i = 0; i < W.size(); ++i) {
      W.data()[i] += change.data()[i];
    }
  }

  void merge_biases(std::vector<float>& bias) const {
    for (const AdapterPart& part : module_.parts) {
      if (part.module->bias) bias = part.module->bias->values;
    }
    for (const AdapterPart& part : module_.parts) {
      merge_bias_in_place(delta_of(*part.module), part.weight, bias);
    }
  }

  AdaptedModule module_;
  CombineConfig config_;
  ThreadPool* pool_;
};

void refuse_bottlenecks(const AdapterSet& set) {
  for (const AdaptedModule& module : set.modules) {
    for (const AdapterPart& part : module.parts) {
      if (!part.module->bottleneck) continue;
      fail(ErrorCode::kUnsupported,
           "{}: module '{}': a bottleneck is no change of weights: it cannot "
           "be merged, it stays beside the model (--adapter)",
           part.adapter, module.name);
    }
  }
}

using Merge = std::shared_ptr<const ModuleMerge>;

void require_unrotated(const std::string& name, const LinearWeights& linear) {
  if (linear.input_hadamard == 0) return;
  fail(ErrorCode::kUnsupported,
       "'{}' is rotated: the adapter was trained on inputs that are not; merge "
       "it before rotating",
       name);
}

std::size_t largest_rank(const AdapterSet& set) {
  std::size_t rank = 0;
  for (const AdaptedModule& module : set.modules) {
    for (const AdapterPart& part : module.parts) {
      rank = std::max(rank, part.module->A.rows());
    }
  }
  return rank;
}

class MergePlan {
 public:
  MergePlan(const Checkpoint& checkpoint, const Architecture& arch,
            const CombineConfig& config, ThreadPool& pool)
      : checkpoint_(checkpoint), arch_(arch), config_(config), pool_(pool) {}

  AdapterMerge plan(const AdapterSet& set) {
    result_.notes = set.notes;
    result_.edits.arch = &arch_;
    if (config_.svd_rank == 0) config_.svd_rank = largest_rank(set);
    for (const AdaptedModule& module : set.modules) add(module);
    if (untie_) add_head();
    return std::move(result_);
  }

 private:
  void add(const AdaptedModule& module) {
    const Merge merge = std::make_shared<ModuleMerge>(module, config_, pool_);
    result_.merged.push_back(module.name);
    CheckpointEdits& edits = result_.edits;
    switch (module.place) {
      case ModulePlace::kLinear:
        edits.linears[module.name] = [merge, name = module.name](
                                         MatrixF& W, LinearWeights& linear) {
          require_unrotated(name, linear);
          merge->apply(W, &linear.bias);
        };
        if (module.changes_bias()) edits.biases.insert(module.name);
        break;
      case ModulePlace::kHead:
        require_dense(arch_.tied_head ? arch_.embedding : module.name);
        if (arch_.tied_head) {
          untie_ = true;
          head_ = merge;
        } else {
          edits.linears[module.name] = [merge](MatrixF& W, LinearWeights&) {
            merge->apply(W, nullptr);
          };
        }
        break;
      case ModulePlace::kEmbedding:
        require_dense(module.name);
        untie_ = untie_ || arch_.tied_head;
        [[fallthrough]];
      case ModulePlace::kNorm:
        edits.tensors[module.name + ".weight"] = [merge](MatrixF& W) {
          merge->apply(W, nullptr);
        };
        break;
    }
  }

  void require_dense(const std::string& name) const {
    if (dense_matrix(checkpoint_, name) != nullptr) return;
    fail(ErrorCode::kUnsupported,
         "{}: '{}' is stored packed, and the adapter changes it",
         checkpoint_.path(), name);
  }

  // The base's embedding, as the head had it, with what changes the head.
  void add_head() {
    const TensorInfo* info = dense_matrix(checkpoint_, arch_.embedding);
    result_.edits.added_linears[arch_.head] = {
        .dtype = info->dtype,
        .out = arch_.vocabulary,
        .in = arch_.hidden,
        .make = [checkpoint = &checkpoint_, name = arch_.embedding,
                 head = head_] {
          MatrixF W = read_matrix(checkpoint->tensors(), name + ".weight");
          if (head) head->apply(W, nullptr);
          return W;
        }};
    result_.edits.config_json =
        with_flag(checkpoint_.config_json(), "tie_word_embeddings", false);
    result_.notes.push_back(
        "the adapter changes one of embedding and head, which the model ties: "
        "untied, the head is stored by itself");
  }

  const Checkpoint& checkpoint_;
  const Architecture& arch_;
  CombineConfig config_;
  ThreadPool& pool_;
  bool untie_ = false;
  Merge head_{};
  AdapterMerge result_;
};

}  // namespace

AdapterMerge merge_adapters(const Checkpoint& checkpoint,
                            const Architecture& arch,
                            const std::vector<WeightedAdapter>& adapters,
                            const CombineConfig& config, ThreadPool& pool) {
  check(config);
  // One adapter is merged as it is, whatever the method, as PEFT does.
  const CombineConfig used = adapters.size() > 1 ? config : CombineConfig{};
  const AdapterSet set = read_adapters(checkpoint, arch, adapters);
  refuse_bottlenecks(set);
  return MergePlan(checkpoint, arch, used, pool).plan(set);
}

AdapterMerge replace_modules(const Checkpoint& checkpoint,
                             const Architecture& arch, const AdapterSet& set,
                             ThreadPool& pool) {
  AdapterSet replacements;
  for (const AdaptedModule& module : set.modules) {
    AdaptedModule kept{.name = module.name, .place = module.place};
    for (const AdapterPart& part : module.parts) {
      if (!part.module->weight && !part.module->bias) continue;
      kept.parts.push_back(
          {.module = std::make_shared<PeftModule>(PeftModule{
               .weight = part.module->weight, .bias = part.module->bias}),
           .weight = 1,
           .adapter = part.adapter});
    }
    if (!kept.parts.empty()) replacements.modules.push_back(std::move(kept));
  }
  return MergePlan(checkpoint, arch, {}, pool).plan(replacements);
}

AdapterMerge unmerge_adapters(const Checkpoint& checkpoint,
                              const Architecture& arch,
                              const std::vector<WeightedAdapter>& adapters,
                              ThreadPool& pool) {
  const auto unsupported = [](const AdapterPart& part, const std::string& name,
                              const char* why) {
    fail(ErrorCode::kUnsupported, "{}: module '{}': {}", part.adapter, name,
         why);
  };
  AdapterSet set = read_adapters(checkpoint, arch, adapters);
  refuse_bottlenecks(set);
  for (AdaptedModule& module : set.modules) {
    for (AdapterPart& part : module.parts) {
      if (!part.module->magnitude.empty()) {
        unsupported(part, module.name,
                    "DoRA cannot be unmerged: it replaced the norms of the "
                    "rows, and the adapter does not hold the original ones");
      }
      if (part.module->weight || part.module->bias) {
        unsupported(part, module.name,
                    "a replaced tensor (modules_to_save) cannot be unmerged: "
                    "the adapter does not hold the original");
      }
      part.weight = -part.weight;
    }
  }
  return MergePlan(checkpoint, arch, {}, pool).plan(set);
}

}  // namespace llmpress
