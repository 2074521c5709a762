#include "compress/pipeline/adapter_merge.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "compress/core/error.h"
#include "formats/peft_adapter.h"
#include "lora/lora_delta.h"

namespace llmpress {
namespace {

// One adapter's part in one module.
struct Contribution {
  std::shared_ptr<const PeftModule> module{};
  double weight = 1;
  std::string adapter{};  // for messages
};

LoraDelta delta_of(const PeftModule& module) {
  return {.A = module.A,
          .B = module.B,
          .scaling = module.scaling,
          .magnitude = module.magnitude,
          .bias = module.lora_bias,
          .transposed = module.embedding};
}

[[noreturn]] void refuse(const Contribution& c, const std::string& module,
                         const std::string& why) {
  throw Error(ErrorCode::kInvalidInput,
              c.adapter + ": module '" + module + "': " + why);
}

void replace(const Contribution& c, const std::string& module, MatrixF& W) {
  const PeftReplacement& saved = *c.module->weight;
  if (c.weight != 1) {
    refuse(c, module, "a replaced weight cannot be scaled");
  }
  if (saved.values.size() != W.size()) {
    refuse(c, module,
           "the replacement has " + std::to_string(saved.values.size()) +
               " weights, the model " + std::to_string(W.size()));
  }
  std::ranges::copy(saved.values, W.data().begin());
}

void check_fit(const Contribution& c, const std::string& module,
               const MatrixF& W) {
  const PeftModule& m = *c.module;
  if (!m.has_factors()) return;
  const std::size_t out = m.embedding ? W.cols() : W.rows();
  const std::size_t in = m.embedding ? W.rows() : W.cols();
  if (m.B.rows() == out && m.A.cols() == in) return;
  refuse(c, module,
         "adapter of [" + std::to_string(m.B.rows()) + ", " +
             std::to_string(m.A.cols()) + "] on a weight of [" +
             std::to_string(out) + ", " + std::to_string(in) + "]");
}

// All contributions to one weight.
class ModuleMerge {
 public:
  ModuleMerge(std::string module, CombineConfig config, ThreadPool& pool)
      : module_(std::move(module)), config_(config), pool_(&pool) {}

  void add(Contribution c) { contributions_.push_back(std::move(c)); }

  void apply(MatrixF& W, std::vector<float>* bias) const {
    for (const Contribution& c : contributions_) {
      check_fit(c, module_, W);
      if (c.module->weight) replace(c, module_, W);
    }
    if (config_.method == CombineMethod::kLinear) {
      for (const Contribution& c : contributions_) {
        if (!c.module->has_factors()) continue;
        merge_in_place(delta_of(*c.module), c.weight, W.view(), *pool_);
      }
    } else {
      add_combined(W);
    }
    for (const Contribution& c : contributions_) apply_bias(c, W.rows(), bias);
  }

 private:
  void add_combined(MatrixF& W) const {
    std::vector<MatrixF> changes;
    std::vector<double> weights;
    for (const Contribution& c : contributions_) {
      if (!c.module->has_factors()) continue;
      changes.push_back(change_of(delta_of(*c.module), W.view(), *pool_));
      weights.push_back(c.weight);
    }
    if (changes.empty()) return;
    const MatrixF change =
        combine(std::move(changes), weights, config_, module_, *pool_);
    for (std::size_t i = 0; i < W.size(); ++i) {
      W.data()[i] += change.data()[i];
    }
  }

  void apply_bias(const Contribution& c, std::size_t out,
                  std::vector<float>* bias) const {
    const PeftModule& m = *c.module;
    if (m.lora_bias.empty() && !m.bias) return;
    if (bias == nullptr || (bias->empty() && !m.bias)) {
      refuse(c, module_, "it carries a bias, the model has none there");
    }
    if (m.bias) {
      if (m.bias->values.size() != out) refuse(c, module_, "wrong bias length");
      *bias = m.bias->values;
    }
    if (!m.lora_bias.empty()) {
      merge_bias_in_place(delta_of(m), c.weight, *bias);
    }
  }

  std::string module_;
  CombineConfig config_;
  ThreadPool* pool_;
  std::vector<Contribution> contributions_;
};

}  // namespace

AdapterMerge merge_adapters(const Checkpoint& checkpoint,
                            const Architecture& arch,
                            const std::vector<WeightedAdapter>& adapters,
                            const CombineConfig& config, ThreadPool& pool) {
  check(config);
  std::map<std::string, std::shared_ptr<ModuleMerge>> merges;
  for (const WeightedAdapter& adapter : adapters) {
    PeftAdapter read = read_peft_adapter(adapter.path);
    for (auto& [name, module] : read.modules) {
      auto& merge = merges[name];
      if (!merge) merge = std::make_shared<ModuleMerge>(name, config, pool);
      merge->add({.module = std::make_shared<PeftModule>(std::move(module)),
                  .weight = adapter.weight,
                  .adapter = adapter.path.string()});
    }
  }
  AdapterMerge result;
  for (const auto& entry : merges) {
    const std::string& name = entry.first;
    const std::shared_ptr<const ModuleMerge> merge = entry.second;
    const bool end = name == arch.embedding || name == arch.final_norm ||
                     (name == arch.head && !checkpoint.has_linear(name));
    if (name == arch.head && arch.tied_head) {
      throw Error(ErrorCode::kUnsupported,
                  "the adapter changes '" + name +
                      "', which this model ties to its embedding; untie the "
                      "base first");
    }
    if (end) {
      result.edits.tensors[name + ".weight"] = [merge](MatrixF& W) {
        merge->apply(W, nullptr);
      };
    } else if (checkpoint.has_linear(name)) {
      result.edits.linears[name] = [merge](MatrixF& W, LinearWeights& linear) {
        merge->apply(W, &linear.bias);
      };
    } else {
      throw Error(ErrorCode::kInvalidInput,
                  adapters.front().path.string() + ": module '" + name +
                      "' is not in the model " + checkpoint.path().string());
    }
    result.merged.push_back(name);
  }
  return result;
}

}  // namespace llmpress
