#include "compress/pipeline/run/stage_check.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/surgery/block_smoothing.h"
#include "recipes/key_table.h"

namespace llmpress {
namespace {

[[noreturn]] void refuse(const SourcePosition& position,
                         const std::string& why) {
  fail(ErrorCode::kInvalidArgument, "{}: {}", position.to_string(), why);
}

std::vector<Module> modules_of(const Architecture& arch) {
  std::vector<Module> modules;
  for (std::string& name : arch.linear_names()) {
    modules.push_back({std::move(name)});
  }
  modules.push_back({arch.embedding, ModuleRole::kEmbedding});
  modules.push_back({arch.head, ModuleRole::kHead});
  return modules;
}

// A pruning, quantizing or tuning stage.
struct Selecting {
  std::string_view kind{};
  const LayerSelection* layers = nullptr;
  const SourcePosition* position = nullptr;
  LayerSelector selector;
};

template <class S>
Selecting selecting(std::string_view kind, const S& stage) {
  return {kind, &stage.layers, &stage.position,
          LayerSelector(stage.layers, stage.position.to_string())};
}

std::vector<Selecting> selecting_stages(const StagePlan& plan) {
  std::vector<Selecting> stages;
  for (const PruneStage* s : plan.pruning()) {
    stages.push_back(selecting("prune", *s));
  }
  for (const QuantizeStage* s : plan.quantizing()) {
    stages.push_back(selecting("quantize", *s));
  }
  for (const Stage* stage : plan.transforms()) {
    const auto* const tune = std::get_if<TuneStage>(stage);
    if (tune != nullptr) stages.push_back(selecting("tune", *tune));
  }
  return stages;
}

enum class EntryList { kTargets, kIgnore };

const std::vector<std::string>& entries_of(const LayerSelection& layers,
                                           EntryList list) {
  return list == EntryList::kTargets ? layers.targets : layers.ignore;
}

// Whether `entry` names a module. Targets take an embedding or a head by name
// alone; `ignore` takes them out by any entry, as it does a block's Linears.
bool matches_some(const std::string& entry, EntryList list,
                  std::span<const Module> modules) {
  const LayerSelector alone({.targets = {entry}, .ignore = {}}, "");
  return std::ranges::any_of(modules, [&](const Module& m) {
    return alone.selects(m.name, list == EntryList::kTargets
                                     ? m.role
                                     : ModuleRole::kBlockLinear);
  });
}

bool is_glob(const std::string& entry) {
  return !entry.starts_with("re:") &&
         entry.find_first_of("*?[") != std::string::npos;
}

std::string_view last_name(std::string_view module) {
  return module.substr(module.rfind('.') + 1);
}

// "; did you mean 'up_proj'?" where a module's last name is near.
std::string suggestion(const std::string& entry,
                       std::span<const Module> modules) {
  constexpr std::size_t kLongest = 64;
  if (entry.size() > kLongest) return "";
  std::vector<std::string_view> names;
  for (const Module& module : modules) names.push_back(last_name(module.name));
  const std::string_view near = nearest_word(last_name(entry), names);
  return near.empty() ? "" : formatted("; did you mean '{}'?", near);
}

// "'up_porj' of 'ignore' matches no module; did you mean 'up_proj'?" for each
// such entry.
std::vector<std::string> unmatched(const LayerSelection& layers, EntryList list,
                                   std::span<const Module> modules) {
  std::vector<std::string> sentences;
  for (const std::string& entry : entries_of(layers, list)) {
    if (matches_some(entry, list, modules)) continue;
    sentences.push_back("'" + entry + "' of '" +
                        (list == EntryList::kTargets ? "targets" : "ignore") +
                        "' matches no module" +
                        (is_glob(entry)
                             ? ": globs are not known here, write 're:' and a "
                               "regular expression"
                             : suggestion(entry, modules)));
  }
  return sentences;
}

std::vector<std::string> unmatched(const LayerSelection& layers,
                                   std::span<const Module> modules) {
  std::vector<std::string> all =
      unmatched(layers, EntryList::kTargets, modules);
  for (std::string& sentence : unmatched(layers, EntryList::kIgnore, modules)) {
    all.push_back(std::move(sentence));
  }
  return all;
}

void check_globs(const Selecting& stage, std::span<const Module> modules) {
  for (const EntryList list : {EntryList::kTargets, EntryList::kIgnore}) {
    const auto& entries = entries_of(*stage.layers, list);
    if (std::ranges::none_of(entries, is_glob)) continue;
    const auto sentences = unmatched(*stage.layers, list, modules);
    if (sentences.empty()) continue;
    refuse(*stage.position, formatted("{}: {}", stage.kind, sentences.front()));
  }
}

void check_selects(const Selecting& stage, std::span<const Module> modules) {
  const bool some = std::ranges::any_of(modules, [&](const Module& m) {
    return stage.selector.selects(m.name, m.role);
  });
  if (some) return;
  std::string why;
  for (const std::string& sentence : unmatched(*stage.layers, modules)) {
    why += (why.empty() ? ": " : "; ") + sentence;
  }
  refuse(*stage.position,
         formatted("{} selects nothing{}", stage.kind,
                   why.empty() ? ": 'ignore' takes out all that 'targets' names"
                               : why));
}

void check_single(std::span<const Selecting> stages,
                  std::span<const Module> modules) {
  for (const Module& module : modules) {
    const Selecting* first = nullptr;
    for (const Selecting& stage : stages) {
      if (!stage.selector.selects(module.name, module.role)) continue;
      // Adapters may follow one another.
      if (stage.kind == "tune") continue;
      if (first != nullptr && first->kind == stage.kind) {
        refuse(
            *stage.position,
            formatted("{} selects '{}', which the stage at {} selects too; a "
                      "Linear goes through one of a kind",
                      stage.kind, module.name, first->position->to_string()));
      }
      first = &stage;
    }
  }
}

}  // namespace

void check_selections(const StagePlan& plan, std::span<const Module> modules) {
  const std::vector<Selecting> stages = selecting_stages(plan);
  for (const Selecting& stage : stages) {
    check_globs(stage, modules);
    check_selects(stage, modules);
  }
  check_single(stages, modules);
}

void check_selections(const StagePlan& plan, const Architecture& arch) {
  check_selections(plan, modules_of(arch));
  if (plan.smoothing().empty()) return;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    if (wants_smoothing(plan, arch, layer)) return;
  }
  refuse(plan.smoothing().front()->position,
         "'smooth' changes nothing: no 'quantize' stage rounds the Linears "
         "behind a norm together");
}

std::vector<std::string> selection_notes(const StagePlan& plan,
                                         std::span<const Module> modules) {
  std::vector<std::string> notes;
  for (const Selecting& stage : selecting_stages(plan)) {
    for (const std::string& sentence : unmatched(*stage.layers, modules)) {
      notes.push_back(formatted("{}: {}: {}", stage.position->to_string(),
                                stage.kind, sentence));
    }
  }
  return notes;
}

std::vector<std::string> selection_notes(const StagePlan& plan,
                                         const Architecture& arch) {
  std::vector<std::string> notes = selection_notes(plan, modules_of(arch));
  for (std::string& note : unscaled_groups(plan, arch)) {
    notes.push_back(std::move(note));
  }
  return notes;
}

}  // namespace llmpress
