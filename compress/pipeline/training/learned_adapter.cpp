#include "compress/pipeline/training/learned_adapter.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/core/rng.h"
#include "compress/core/sparse_difference.h"
#include "compress/pipeline/training/selected_linears.h"
#include "pruning/hard_concrete.h"

namespace llmpress {
namespace {

MatrixF matrix_of(const Parameter& parameter) {
  MatrixF values(parameter.shape.at(0), parameter.shape.at(1));
  std::ranges::copy(parameter.value, values.data().begin());
  return values;
}

// "<module>" of "<module>.lora_A.weight", or nothing.
std::string module_before(const std::string& name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return "";
  return name.substr(0, name.size() - suffix.size());
}

}  // namespace

std::map<std::string, LoraConfig> adapters_of(const TuneStage& stage,
                                              const Architecture& arch) {
  std::map<std::string, LoraConfig> chosen;
  for (const SelectedLinear& linear : selected_linears(stage, arch)) {
    const LinearSpec& spec = spec_of(linear, arch);
    const std::size_t most = std::min(spec.out, spec.in);
    if (stage.adapter.rank > most) {
      fail(ErrorCode::kInvalidArgument,
           "{}: tune: 'rank' {} is above {}, the smaller side of '{}'",
           stage.position.to_string(), stage.adapter.rank, most, linear.name);
    }
    Rng mixed(stage.adapter.seed);
    chosen[linear.name] = {.rank = stage.adapter.rank,
                           .scaling = stage.adapter.scaling(),
                           .dora = stage.adapter.method == AdapterKind::kDora,
                           .seed = mixed.next() + linear.number};
  }
  return chosen;
}

std::map<std::string, PeftModule> learned_adapter(
    std::span<const Parameter> parameters, double scaling) {
  std::map<std::string, PeftModule> modules;
  for (const Parameter& p : parameters) {
    if (const auto a = module_before(p.name, ".lora_A.weight"); !a.empty()) {
      modules[a].A = matrix_of(p);
      modules[a].scaling = scaling;
    } else if (const auto b = module_before(p.name, ".lora_B.weight");
               !b.empty()) {
      modules[b].B = matrix_of(p);
    } else if (const auto m = module_before(p.name, ".lora_magnitude_vector");
               !m.empty()) {
      modules[m].magnitude.assign(p.value.begin(), p.value.end());
    }
  }
  return modules;
}

std::map<std::string, PeftModule> learned_bottlenecks(
    std::span<const Parameter> parameters, Activation activation) {
  const std::string name(std::ranges::find(kBottleneckActivations, activation,
                                           &Named<Activation>::value)
                             ->name);
  std::map<std::string, PeftModule> modules;
  const auto of = [&](const std::string& path) -> PeftBottleneck& {
    PeftModule& module = modules[path];
    if (!module.bottleneck) module.bottleneck.emplace();
    return *module.bottleneck;
  };
  const auto vector = [](const Parameter& p) {
    return std::vector<float>(p.value.begin(), p.value.end());
  };
  for (const Parameter& p : parameters) {
    if (const auto a = module_before(p.name, ".adapter_down.weight");
        !a.empty()) {
      of(a).down = matrix_of(p);
      of(a).activation = name;
    } else if (const auto b = module_before(p.name, ".adapter_down.bias");
               !b.empty()) {
      of(b).down_bias = vector(p);
    } else if (const auto c = module_before(p.name, ".adapter_up.weight");
               !c.empty()) {
      of(c).up = matrix_of(p);
    } else if (const auto d = module_before(p.name, ".adapter_up.bias");
               !d.empty()) {
      of(d).up_bias = vector(p);
    }
  }
  return modules;
}

std::map<std::string, PeftModule> learned_differences(
    std::span<const Parameter> parameters, std::size_t keep) {
  std::map<std::string, MatrixF> changes;
  for (const Parameter& p : parameters) {
    if (const auto path = module_before(p.name, ".difference"); !path.empty()) {
      changes[path] = matrix_of(p);
    }
  }
  std::vector<std::span<const float>> parts;
  for (const Parameter& p : parameters) {
    const auto path = module_before(p.name, ".log_alpha");
    if (path.empty()) continue;
    MatrixF& change = changes.at(path);
    for (std::size_t i = 0; i < change.size(); ++i) {
      change.data()[i] *= static_cast<float>(settled_gate(double{p.value[i]}));
    }
    parts.push_back(std::as_const(change).data());
  }
  const float least = largest_magnitudes(parts, keep);
  std::map<std::string, PeftModule> modules;
  for (auto& [path, change] : changes) {
    for (float& x : change.data()) {
      if (std::fabs(x) < least) x = 0;
    }
    modules[path].difference = sparse_difference(std::as_const(change).view());
  }
  return modules;
}

}  // namespace llmpress
