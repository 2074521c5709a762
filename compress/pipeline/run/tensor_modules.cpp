#include "compress/pipeline/run/tensor_modules.h"

#include <algorithm>
#include <array>
#include <optional>

#include "compress/core/formatted.h"
#include "formats/checkpoints/config_reader.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/quantization_config.h"

namespace llmpress {
namespace {

// What follows a module's name in the tensor that tells its form.
constexpr std::array<std::string_view, 4> kWeightEndings = {
    ".weight", ".weight_packed", ".weight.compressed", ".compressed"};

// Parts of a packed weight beside those that begin with "weight".
constexpr std::array<std::string_view, 8> kOtherParts = {"input_scale",
                                                         "input_zero_point",
                                                         "input_global_scale",
                                                         "g_idx",
                                                         "SCB",
                                                         "compressed",
                                                         "bitmask",
                                                         "shape"};

std::string_view last_part(std::string_view name) {
  return name.substr(name.rfind('.') + 1);
}

// Whether `holds` is true of a part between the dots.
bool any_part(std::string_view name, bool (*holds)(std::string_view)) {
  while (true) {
    const std::size_t dot = name.find('.');
    if (holds(name.substr(0, dot))) return true;
    if (dot == std::string_view::npos) return false;
    name.remove_prefix(dot + 1);
  }
}

bool is_number(std::string_view part) {
  return !part.empty() &&
         part.find_first_not_of("0123456789") == std::string_view::npos;
}

bool is_router(std::string_view part) {
  return part == "router" || part == "gate";
}

std::optional<std::size_t> vocabulary_of(const Checkpoint& checkpoint) {
  const ConfigReader config = ConfigReader::parse(
      checkpoint.config_json(), config_place(checkpoint.path().string()));
  if (const auto text = config.object("text_config")) {
    if (const auto size = text->size("vocab_size")) return size;
  }
  return config.size("vocab_size");
}

// Why a tensor that would do for a weight is none; empty: it is one.
std::string no_linear(std::string_view module) {
  const std::string_view last = last_part(module);
  if (last.find("norm") != std::string_view::npos) return "a norm by its name";
  if (last.ends_with("bias")) return "a table of biases by its name";
  return {};
}

class ModuleFinder {
 public:
  explicit ModuleFinder(const Checkpoint& checkpoint)
      : checkpoint_(checkpoint), vocabulary_(vocabulary_of(checkpoint)) {}

  TensorModules find() {
    if (checkpoint_.format() == "mxfp4") {
      fail(ErrorCode::kUnsupported,
           "{}: stacks in MXFP4 mean nothing without the quantization_config "
           "that would be written anew; give the model in plain numbers",
           checkpoint_.path());
    }
    for (const TensorInfo& info : checkpoint_.tensors().tensors())
      look_at(info);
    std::ranges::sort(found_.modules, {}, &Module::name);
    return std::move(found_);
  }

 private:
  void look_at(const TensorInfo& info) {
    for (const std::string_view ending : kWeightEndings) {
      if (!info.name.ends_with(ending)) continue;
      const std::string module =
          info.name.substr(0, info.name.size() - ending.size());
      if (checkpoint_.has_linear(module)) return take(info, module);
    }
    if (info.shape.size() == 3 && info.shape[1] > 1 && info.shape[2] > 1) {
      found_.passed[info.name] =
          "of three dimensions (stacked experts, "
          "convolutions)";
    } else if (info.shape.size() == 2 && info.name.ends_with(".weight") &&
               facts(info.dtype).bits == 8) {
      found_.passed[info.name] = "codes without a scale";
    }
  }

  void take(const TensorInfo& info, const std::string& module) {
    if (const std::string why = no_linear(module); !why.empty()) {
      found_.passed[info.name] = why;
      return;
    }
    Module taken{.name = module};
    if (checkpoint_.plain_weight(module) != nullptr) {
      taken.out = info.shape[0];
      taken.in = info.shape[1];
    } else {
      const PackedWeight weight = checkpoint_.read_linear(module).weight;
      taken.out = rows_of(weight);
      taken.in = cols_of(weight);
    }
    if (!bias_fits(taken)) {
      found_.passed[info.name] = "beside a bias that is not one number a row";
      return;
    }
    taken.role = role_of(taken);
    found_.modules.push_back(std::move(taken));
  }

  bool bias_fits(const Module& module) const {
    const TensorInfo* const bias =
        checkpoint_.tensors().find(module.name + ".bias");
    return bias == nullptr ||
           bias->shape == std::vector<std::size_t>{module.out};
  }

  ModuleRole role_of(const Module& module) {
    const std::string_view last = last_part(module.name);
    if (is_embedding_name(module.name)) {
      found_.reserved[module.name] = "an embedding by its name";
      return ModuleRole::kEmbedding;
    }
    if (is_head_name(module.name) || last == "head") {
      found_.reserved[module.name] = "a head by its name";
      return ModuleRole::kHead;
    }
    if (any_part(module.name, is_router) || last == "shared_expert_gate") {
      found_.reserved[module.name] = "a router by its name";
      return ModuleRole::kRouter;
    }
    if (module.out == vocabulary_ && !any_part(module.name, is_number)) {
      found_.reserved[module.name] = "of as many rows as the vocabulary";
      return ModuleRole::kHead;
    }
    return ModuleRole::kBlockLinear;
  }

  const Checkpoint& checkpoint_;
  std::optional<std::size_t> vocabulary_;
  TensorModules found_{};
};

}  // namespace

const Module* TensorModules::owner(std::string_view tensor) const {
  for (std::size_t dot = tensor.rfind('.'); dot != std::string_view::npos;
       dot = dot == 0 ? std::string_view::npos : tensor.rfind('.', dot - 1)) {
    const std::string_view name = tensor.substr(0, dot);
    const auto at = std::ranges::lower_bound(modules, name, {}, &Module::name);
    if (at == modules.end() || at->name != name) continue;
    const std::string_view part = tensor.substr(dot + 1);
    const bool own = part.starts_with("weight") ||
                     std::ranges::find(kOtherParts, part) != kOtherParts.end();
    return own ? &*at : nullptr;
  }
  return nullptr;
}

TensorModules find_modules(const Checkpoint& checkpoint) {
  return ModuleFinder(checkpoint).find();
}

}  // namespace llmpress
