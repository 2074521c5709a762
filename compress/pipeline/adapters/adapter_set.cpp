#include "compress/pipeline/adapters/adapter_set.h"

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/model/block.h"
#include "formats/adapters/adapter_folder.h"
#include "formats/adapters/bottleneck_adapter.h"
#include "formats/adapters/difference_adapter.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

std::string brackets(std::size_t rows, std::size_t cols) {
  return formatted("[{}, {}]", rows, cols);
}

// A module that an adapter may change: W [rows, cols] as it is stored, a norm's
// gain as one row.
struct ModuleShape {
  ModulePlace place = ModulePlace::kLinear;
  std::size_t rows = 0, cols = 0;
  bool bias = false;
};

std::map<std::string, ModuleShape> modules_of(const Architecture& arch) {
  std::map<std::string, ModuleShape> modules;
  modules[arch.embedding] = {ModulePlace::kEmbedding, arch.vocabulary,
                             arch.hidden};
  modules[arch.head] = {ModulePlace::kHead, arch.vocabulary, arch.hidden};
  modules[arch.final_norm] = {ModulePlace::kNorm, 1, arch.hidden};
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    const BlockSpec& block = arch.block(layer);
    for (std::size_t l = 0; l < block.linears.size(); ++l) {
      const LinearSpec& spec = block.linears[l];
      modules[arch.linear_name(layer, l)] = {ModulePlace::kLinear, spec.out,
                                             spec.in, spec.bias};
    }
    for (const NormSpec& norm : block.norms) {
      modules[arch.block_name(layer) + "." + norm.name] = {ModulePlace::kNorm,
                                                           1, norm.width};
    }
  }
  return modules;
}

// What to do where an embedding or a head has other rows than the model's.
std::string vocabulary_hint(const ModuleShape& shape, std::size_t rows) {
  const bool end = shape.place == ModulePlace::kEmbedding ||
                   shape.place == ModulePlace::kHead;
  if (!end || rows == shape.rows) return "";
  return formatted(
      ": the adapter was trained with a vocabulary of {} tokens; give the base "
      "as many rows first (transformers: resize_token_embeddings, then "
      "save_pretrained)",
      rows);
}

void check_factors(const AdapterPart& part, const std::string& name,
                   const ModuleShape& shape) {
  const PeftModule& m = *part.module;
  if (!m.has_factors()) return;
  if (shape.place == ModulePlace::kNorm) {
    refuse_part(part, name, "low-rank factors on a norm");
  }
  if (m.embedding != (shape.place == ModulePlace::kEmbedding)) {
    refuse_part(part, name,
                m.embedding ? "lora_embedding_A on what is no embedding"
                            : "lora_A on an embedding, wanted "
                              "lora_embedding_A");
  }
  const std::size_t rows = m.embedding ? m.A.cols() : m.B.rows();
  const std::size_t cols = m.embedding ? m.B.rows() : m.A.cols();
  if (rows == shape.rows && cols == shape.cols) return;
  refuse_part(part, name,
              "factors for a weight of " + brackets(rows, cols) +
                  ", the model has " + brackets(shape.rows, shape.cols) +
                  vocabulary_hint(shape, rows));
}

void check_replacement(const AdapterPart& part, const std::string& name,
                       const PeftReplacement& replacement, const char* what,
                       const std::vector<std::size_t>& wanted,
                       const ModuleShape& shape) {
  if (part.weight != 1) {
    refuse_part(
        part, name,
        formatted(
            "a replaced {} counts whole or not at all, not with a weight of {}",
            what, part.weight));
  }
  if (replacement.shape == wanted) return;
  refuse_part(part, name,
              formatted("a {} of {} does not replace one of {}{}", what,
                        shape_text(replacement.shape), shape_text(wanted),
                        replacement.shape.size() == 2
                            ? vocabulary_hint(shape, replacement.shape[0])
                            : ""));
}

void check_own_kinds(const AdapterPart& part, const std::string& name,
                     const ModuleShape& shape) {
  const SparseDifference& d = part.module->difference;
  const auto& bottleneck = part.module->bottleneck;
  if (d.rows == 0 && !bottleneck) return;
  if (shape.place != ModulePlace::kLinear) {
    refuse_part(part, name, "wanted a Linear of a block");
  }
  if (d.rows != 0 && (d.rows != shape.rows || d.cols != shape.cols)) {
    refuse_part(part, name,
                "a difference of a weight of " + brackets(d.rows, d.cols) +
                    ", the model has " + brackets(shape.rows, shape.cols));
  }
  if (!bottleneck) return;
  if (bottleneck->down.cols() != shape.rows) {
    refuse_part(part, name,
                formatted("a bottleneck behind {} outputs, the model has {}",
                          bottleneck->down.cols(), shape.rows));
  }
  if (part.weight == 1) return;
  refuse_part(part, name,
              formatted("a bottleneck has no weight of its own: found {}, "
                        "wanted 1",
                        part.weight));
}

void check_part(const AdapterPart& part, const std::string& name,
                const ModuleShape& shape) {
  const PeftModule& m = *part.module;
  check_factors(part, name, shape);
  check_own_kinds(part, name, shape);
  if (m.weight) {
    const std::vector<std::size_t> wanted =
        shape.place == ModulePlace::kNorm
            ? std::vector<std::size_t>{shape.cols}
            : std::vector<std::size_t>{shape.rows, shape.cols};
    check_replacement(part, name, *m.weight, "weight", wanted, shape);
  }
  if (m.lora_bias.empty() && !m.bias) return;
  if (!shape.bias) {
    refuse_part(part, name, "it carries a bias, the model has none there");
  }
  if (m.bias)
    check_replacement(part, name, *m.bias, "bias", {shape.rows}, shape);
}

void check_single(const AdaptedModule& module, const char* what,
                  std::optional<PeftReplacement> PeftModule::*replacement) {
  const AdapterPart* first = nullptr;
  for (const AdapterPart& part : module.parts) {
    if (!((*part.module).*replacement)) continue;
    if (first != nullptr) {
      refuse_part(part, module.name,
                  formatted("replaces the {} that {} replaces too", what,
                            first->adapter));
    }
    first = &part;
  }
}

bool ends_as(const std::string& module, const std::string& target) {
  if (!module.ends_with(target)) return false;
  return module.size() == target.size() ||
         module[module.size() - target.size() - 1] == '.';
}

using Modules = std::map<std::string, ModuleShape>;

// "all-linear", a pattern, or a name that some module ends in.
bool is_pattern(const std::string& target) {
  return target == "all-linear" ||
         target.find_first_of("*+?()[]{}|^$\\") != std::string::npos;
}

// A file that was cut or filtered holds fewer factors than its configuration
// speaks of; layers_to_transform and exclude_modules explain the same, so that
// it is no error.
void note_missing(const PeftAdapter& read, const Modules& modules,
                  const std::string& where, std::vector<std::string>& notes) {
  for (const std::string& target : read.config.target_modules) {
    std::size_t named = 0, held = 0;
    for (const auto& entry : modules) {
      if (!ends_as(entry.first, target)) continue;
      ++named;
      if (read.modules.contains(entry.first)) ++held;
    }
    if (named == 0 && !is_pattern(target)) {
      notes.push_back(where + ": target_modules names '" + target +
                      "', which no module of the model is");
    }
    if (held == named) continue;
    notes.push_back(
        formatted("{}: target_modules names '{}', but {} of {} such modules "
                  "have no factors and stay as they are",
                  where, target, named - held, named));
  }
}

template <class Value>
void note_unmatched(const PatternValues<Value>& pattern, const char* key,
                    const Modules& modules, const std::string& where,
                    std::vector<std::string>& notes) {
  constexpr std::size_t kNamed = 16;
  std::vector<std::string> paths;
  for (const auto& entry : modules) paths.push_back(entry.first);
  const std::vector<std::size_t> unmatched = pattern.keys.unmatched(paths);
  for (std::size_t i = 0; i < unmatched.size() && i < kNamed; ++i) {
    notes.push_back(where + ": " + key + " has '" +
                    pattern.names[unmatched[i]] +
                    "', which matches no module of the model");
  }
  if (unmatched.size() > kNamed) {
    notes.push_back(formatted("{}: {} has {} more such entries", where, key,
                              unmatched.size() - kNamed));
  }
}

bool has_nonzero(std::span<const float> values) {
  return std::ranges::any_of(values, [](float v) { return v != 0; });
}

bool changes_something(const PeftModule& m) {
  return m.weight || m.bias || !m.magnitude.empty() || m.bottleneck ||
         !m.difference.empty() ||
         (m.scaling != 0 &&
          (has_nonzero(m.lora_bias) ||
           (has_nonzero(m.A.data()) && has_nonzero(m.B.data()))));
}

// What of an adapter does nothing, in words.
void note_idle(const WeightedAdapter& adapter, const PeftAdapter& read,
               const Modules& modules, std::vector<std::string>& notes) {
  const std::string where = adapter.path.string();
  note_missing(read, modules, where, notes);
  note_unmatched(read.config.rank_pattern, "rank_pattern", modules, where,
                 notes);
  note_unmatched(read.config.alpha_pattern, "alpha_pattern", modules, where,
                 notes);
  const bool idle = adapter.weight == 0 ||
                    std::ranges::none_of(read.modules, [](const auto& entry) {
                      return changes_something(entry.second);
                    });
  if (!idle) return;
  notes.push_back(where + (adapter.weight == 0
                               ? ": has a scale of 0 and changes nothing"
                               : ": changes nothing: all of its numbers are "
                                 "zero"));
}

// Modules by the names of the checkpoint, where the model's class puts something
// in front of them ("transformer.h.0" for the "h.0" of GPT-2's own files).
void use_stored_names(const Architecture& arch, const Modules& known,
                      PeftAdapter& adapter) {
  const std::string& of_class = arch.hf_class.block_prefix;
  if (of_class == arch.block_prefix || !of_class.ends_with(arch.block_prefix)) {
    return;
  }
  const std::string front =
      of_class.substr(0, of_class.size() - arch.block_prefix.size());
  std::map<std::string, PeftModule> renamed;
  for (auto& [name, module] : adapter.modules) {
    const bool by_class = !known.contains(name) && name.starts_with(front);
    renamed.emplace(by_class ? name.substr(front.size()) : name,
                    std::move(module));
  }
  adapter.modules = std::move(renamed);
}

PeftAdapter read_modules(const std::filesystem::path& adapter) {
  const AdapterFormat format = read_adapter_format(adapter);
  switch (format) {
    case AdapterFormat::kLora:
      return read_peft_adapter(adapter);
    case AdapterFormat::kBottleneck:
      return read_bottleneck_adapter(adapter);
    case AdapterFormat::kDifference:
      return read_difference_adapter(adapter);
    case AdapterFormat::kPrefix:
    case AdapterFormat::kPrompt:
      break;
  }
  fail(ErrorCode::kUnsupported,
       "{}: {} stands before the text and is no change of weights: it cannot "
       "be merged or taken out, it stays beside the model (--adapter)",
       adapter, peft_type_of(format));
}

}  // namespace

bool AdaptedModule::runs_beside() const {
  return std::ranges::any_of(parts, [](const AdapterPart& p) {
    return p.module->has_factors() || p.module->bottleneck ||
           !p.module->difference.empty();
  });
}

bool AdaptedModule::has_factors() const {
  return std::ranges::any_of(
      parts, [](const AdapterPart& p) { return p.module->has_factors(); });
}

bool AdaptedModule::has_dora() const {
  return std::ranges::any_of(
      parts, [](const AdapterPart& p) { return !p.module->magnitude.empty(); });
}

bool AdaptedModule::replaces() const {
  return std::ranges::any_of(parts, [](const AdapterPart& p) {
    return p.module->weight.has_value() || p.module->bias.has_value();
  });
}

bool AdaptedModule::changes_bias() const {
  return std::ranges::any_of(parts, [](const AdapterPart& p) {
    return p.module->bias.has_value() || !p.module->lora_bias.empty();
  });
}

LoraDelta delta_of(const PeftModule& module) {
  return {.A = module.A,
          .B = module.B,
          .scaling = module.scaling,
          .magnitude = module.magnitude,
          .bias = module.lora_bias,
          .transposed = module.embedding};
}

void refuse_part(const AdapterPart& part, const std::string& module,
                 const std::string& why) {
  fail(ErrorCode::kInvalidInput, "{}: module '{}': {}", part.adapter, module,
       why);
}

AdapterSet read_adapters(const Checkpoint& checkpoint, const Architecture& arch,
                         const std::vector<WeightedAdapter>& adapters) {
  const std::map<std::string, ModuleShape> known = modules_of(arch);
  AdapterSet set;
  std::map<std::string, AdaptedModule> modules;
  for (const WeightedAdapter& adapter : adapters) {
    PeftAdapter read = read_modules(adapter.path);
    use_stored_names(arch, known, read);
    note_idle(adapter, read, known, set.notes);
    for (auto& [name, module] : read.modules) {
      AdapterPart part{
          .module = std::make_shared<PeftModule>(std::move(module)),
          .weight = adapter.weight,
          .adapter = adapter.path.string()};
      const auto found = known.find(name);
      if (found == known.end()) {
        refuse_part(part, name,
                    "is not in the model " + checkpoint.path().string());
      }
      check_part(part, name, found->second);
      AdaptedModule& adapted = modules[name];
      adapted.name = name;
      adapted.place = found->second.place;
      adapted.parts.push_back(std::move(part));
    }
  }
  for (auto& entry : modules) {
    check_single(entry.second, "weight", &PeftModule::weight);
    check_single(entry.second, "bias", &PeftModule::bias);
    set.modules.push_back(std::move(entry.second));
  }
  return set;
}

}  // namespace llmpress
