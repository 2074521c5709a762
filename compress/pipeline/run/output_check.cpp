#include "compress/pipeline/run/output_check.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/model/block_weights.h"
#include "compress/pipeline/run/end_compressor.h"
#include "compress/pipeline/run/linear_compressor.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/linears/encoded_linear.h"
#include "formats/linears/loader_rules.h"
#include "quantizers/method.h"
#include "quantizers/rtn.h"

namespace llmpress {
namespace {

// Rows of the sample that stands for a weight: whole blocks of FP8 and the rest
// that is left of them. A form depends on its inputs, not on how many outputs.
constexpr std::size_t kSampleRows = 128;

// Stands for the scheme of a Linear whose precision the run will choose.
constexpr const char* kChosenLater = "chosen later";

std::size_t sample_rows(std::size_t out) {
  return out <= kSampleRows ? out : kSampleRows + out % kSampleRows;
}

// What methods add to a rounded weight, as far as it decides the form.
void add_marks(const QuantizeConfig& config, LinearWeights& linear) {
  linear.input = config.input;
  const QuantizerMethod& method = rounding_method(config);
  if (method.mark != nullptr) method.mark(config, linear.weight, linear.input);
}

class OutputChecker {
 public:
  OutputChecker(const OutputConfig& output, const StagePlan& plan,
                const Checkpoint& checkpoint, ThreadPool& pool)
      : output_(output), plan_(plan), checkpoint_(checkpoint), pool_(pool) {}

  OutputCheck check(const Architecture& arch) {
    for (std::size_t layer = 0; layer < arch.layers; ++layer) {
      for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
        const LinearSpec& spec = arch.block(layer).linears[l];
        const std::string name = arch.linear_name(layer, l);
        check_linear(name, spec.out, spec.in,
                     treatment_of(plan_, arch, layer, l),
                     module_of(arch, spec));
      }
      check_fused(arch, layer);
    }
    check_linear(arch.embedding, arch.vocabulary, arch.hidden,
                 embedding_treatment(plan_, arch), {});
    check_linear(arch.head, arch.vocabulary, arch.hidden,
                 head_treatment(plan_, arch),
                 {.weight_read_early = arch.hf_class.reads_weights_early});
    check_experts(arch);
    check_shape(arch);
    say_all();
    return std::move(result_);
  }

  OutputCheck check(std::span<const Module> modules) {
    for (const Module& module : modules) {
      check_linear(module.name, module.out, module.in,
                   plan_.treatment(module.name, module.role), {});
    }
    say_all();
    return std::move(result_);
  }

 private:
  bool for_loaders() const { return output_.format == "compressed-tensors"; }

  static bool is_expert(const LinearSpec& spec) {
    return spec.storage && spec.storage->index;
  }

  static ModuleFacts module_of(const Architecture& arch,
                               const LinearSpec& spec) {
    return {.transposed = spec.storage && spec.storage->transposed &&
                          !spec.storage->index,
            .expert = is_expert(spec) ? arch.hf_class.experts
                                      : ExpertModules::kLinears,
            .weight_read_early = arch.hf_class.reads_weights_early};
  }

  // The form that the Linear will have; nullptr: as it is stored now.
  const LinearWeights* form_of(std::size_t out, std::size_t in,
                               const LinearTreatment& treatment) {
    const bool sparse =
        treatment.prune != nullptr &&
        treatment.prune->config.storage == SparseStorage::kSparse;
    if (treatment.quantize == nullptr && !sparse) return nullptr;
    const auto key = std::make_tuple(treatment.quantize, treatment.prune,
                                     sample_rows(out), in);
    const auto [at, added] = forms_.try_emplace(key);
    if (added) at->second = make_form(sample_rows(out), in, treatment, sparse);
    return &at->second;
  }

  LinearWeights make_form(std::size_t rows, std::size_t in,
                          const LinearTreatment& treatment, bool sparse) {
    const MatrixF zero(rows, in);
    LinearWeights form{.weight = make_dense(zero.view(), DType::kF32)};
    if (treatment.quantize != nullptr) {
      const QuantizeConfig& config = treatment.quantize->config;
      form.weight = round_to_nearest(zero.view(), config, pool_);
      add_marks(config, form);
    }
    if (!sparse) return form;
    if (has_sparse_form(form.weight)) {
      form.weight =
          make_sparse(zero.view(), SparsePattern::kBitmask, DType::kF32);
    }
    return form;
  }

  // A Linear that stays in the codes that it came in; absent: plain numbers.
  std::optional<LinearWeights> packed_before(const std::string& name) const {
    if (!checkpoint_.has_linear(name)) return std::nullopt;
    const TensorInfo* const plain =
        checkpoint_.tensors().find(name + ".weight");
    if (plain != nullptr && facts(plain->dtype).bits > 8) return std::nullopt;
    return checkpoint_.read_linear(name);
  }

  std::string place_of(const LinearTreatment& treatment) const {
    if (treatment.quantize != nullptr) {
      return treatment.quantize->position.to_string();
    }
    if (treatment.prune != nullptr) {
      return treatment.prune->position.to_string();
    }
    return checkpoint_.path().string();
  }

  // The format can store the Linear, and beside those before.
  void check_held(const std::string& name, const LinearWeights& form,
                  const std::string& place) {
    try {
      const EncodedLinear encoded = encode_linear(output_.format, name, form);
      const std::string& scheme = encoded.scheme.format;
      if (!find_output_format(output_.format).one_scheme || scheme == "dense") {
        return;
      }
      if (only_scheme_.empty()) only_scheme_ = scheme;
      if (scheme == only_scheme_) return;
      fail(ErrorCode::kUnsupported,
           "Linear '{}': {} beside {}; {} stores all Linears of a model alike",
           name, scheme, only_scheme_, output_.format);
    } catch (const Error& e) {
      fail(ErrorCode::kInvalidArgument, "{}: {}", place, e.what());
    }
  }

  void check_linear(const std::string& name, std::size_t out, std::size_t in,
                    const LinearTreatment& treatment,
                    const ModuleFacts& module) {
    const LinearWeights* form = form_of(out, in, treatment);
    std::optional<LinearWeights> stored;
    if (form == nullptr) {
      stored = packed_before(name);
      if (!stored) return;
      form = &*stored;
    }
    const std::string place = place_of(treatment);
    check_held(name, *form, place);
    if (!for_loaders()) return;
    const LoaderRule* const rule = broken_rule(name, *form, module);
    if (rule == nullptr) return;
    if (rule->readers == Readers::kOnlyUs && treatment.quantize != nullptr &&
        change(name, in, *rule, *treatment.quantize)) {
      return;
    }
    if (output_.incompatible == Incompatible::kRefuse &&
        rule->readers == Readers::kOnlyUs) {
      fail(ErrorCode::kInvalidArgument, "{}: Linear '{}': {}; {}", place, name,
           rule->reason, rule->remedy);
    }
    note(formatted("{}{}{}", rule->reason,
                   rule->readers == Readers::kOnlyUs
                       ? "; written in the group format 'llmpress', which only "
                         "llmpress loads; "
                       : "; ",
                   rule->remedy),
         name);
  }

  // As the recipe's `incompatible` says; false: the Linear stays what it is.
  bool change(const std::string& name, std::size_t in, const LoaderRule& rule,
              const QuantizeStage& stage) {
    if (output_.incompatible == Incompatible::kSkip) {
      result_.changed[name] = std::nullopt;
      note(formatted("{}; not quantized", rule.reason), name);
      return true;
    }
    if (output_.incompatible != Incompatible::kAdapt) return false;
    QuantizeStage adapted = stage;
    if (rule.name == "activation-order") {
      adapted.config.gptq.static_groups = true;
      note("activation order with static groups, which loaders take", name);
    } else if (rule.name == "group-divides-inputs") {
      std::int64_t& group = adapted.config.weights.group_size;
      group = std::gcd(group, static_cast<std::int64_t>(in));
      if (group < 2) return false;
      note(formatted("groups of {}, which divide {} inputs", group, in), name);
    } else {
      return false;
    }
    result_.changed[name] = std::move(adapted);
    return true;
  }

  // What is done to the Linear, changes by `incompatible` included.
  LinearTreatment treatment_after(const Architecture& arch, std::size_t layer,
                                  std::size_t linear) const {
    LinearTreatment treatment = treatment_of(plan_, arch, layer, linear);
    const auto changed = result_.changed.find(arch.linear_name(layer, linear));
    if (changed != result_.changed.end()) {
      treatment.quantize = changed->second ? &*changed->second : nullptr;
    }
    return treatment;
  }

  // What the Linear will be to an engine, in words that differ where it does.
  std::string scheme_text(const Architecture& arch, std::size_t layer,
                          std::size_t linear) {
    const LinearSpec& spec = arch.block(layer).linears[linear];
    const std::string name = arch.linear_name(layer, linear);
    const LinearTreatment treatment = treatment_after(arch, layer, linear);
    const LinearWeights* const form = form_of(spec.out, spec.in, treatment);
    if (form == nullptr) {
      return checkpoint_.tensors().find(name + ".weight") != nullptr
                 ? "as it was"
                 : "packed before";
    }
    if (treatment.quantize != nullptr &&
        method_of(treatment.quantize->config).chooses_precision()) {
      return kChosenLater;
    }
    return formatted("{} {}{}{} {}", describe(form->weight),
                     static_cast<int>(form->input.kind), form->input.bits,
                     static_cast<int>(form->input.range),
                     form->input.group_size);
  }

  // vLLM runs q, k and v as one product, gate and up as another.
  void check_fused(const Architecture& arch, std::size_t layer) {
    if (!for_loaders()) return;
    for (const StageSpec& stage : arch.block(layer).stages) {
      std::set<std::string> schemes;
      for (const std::size_t l : stage.linears) {
        if (arch.block(layer).linears[l].role == LinearRole::kPlain) {
          schemes.insert(scheme_text(arch, layer, l));
        }
      }
      if (schemes.size() < 2) continue;
      note(
          "vLLM fuses Linears of one input (q, k, v; gate, up) and refuses "
          "different schemes among them; transformers loads them",
          arch.linear_name(layer, stage.linears[0]));
    }
  }

  // transformers stacks the experts of a checkpoint by one scheme, that of a
  // group which names them or of the first group. Only 8-bit floats may come
  // without scales, in plain numbers.
  void check_experts(const Architecture& arch) {
    if (!for_loaders() || arch.hf_class.experts != ExpertModules::kStacked) {
      return;
    }
    std::set<std::string> schemes;
    std::string plain, packed;  // the first of each
    bool integers = false;
    for (std::size_t layer = 0; layer < arch.layers; ++layer) {
      const BlockSpec& block = arch.block(layer);
      for (std::size_t l = 0; l < block.linears.size(); ++l) {
        const LinearSpec& spec = block.linears[l];
        const std::string name = arch.linear_name(layer, l);
        const bool stays = !treatment_after(arch, layer, l).quantize;
        if (is_expert(spec) && stays &&
            !shared_tensor(checkpoint_, arch.block_name(layer), spec) &&
            plain.empty()) {
          plain = name;
        }
        if (stays) continue;
        const std::string scheme = scheme_text(arch, layer, l);
        integers |= !scheme.starts_with("fp8");
        if (!is_expert(spec)) continue;
        schemes.insert(scheme);
        if (packed.empty()) packed = name;
      }
    }
    if (!plain.empty() && integers) {
      note(
          "transformers 5.24 does not load experts in plain numbers beside "
          "packed integers or 4-bit floats; round the experts too, or the rest "
          "to FP8",
          plain);
    }
    if (schemes.size() > 1 || schemes.contains(kChosenLater)) {
      note(
          "transformers 5.24 decodes all experts by one scheme; vLLM wants one "
          "for those of a layer",
          packed);
    }
  }

  // transformers 5 checks this of LlamaConfig even where head_dim is given.
  void check_shape(const Architecture& arch) {
    if (arch.model_type != "llama" || arch.heads == 0 ||
        arch.hidden % arch.heads == 0 || output_.format == "hdf5") {
      return;
    }
    const std::string what = formatted(
        "transformers 5 refuses a LlamaConfig of {} channels and {} heads, "
        "which do not divide them; llmpress loads it",
        arch.hidden, arch.heads);
    if (output_.incompatible == Incompatible::kRefuse) {
      fail(ErrorCode::kInvalidArgument, "{}: {}", output_.path, what);
    }
    result_.warnings.push_back(what);
  }

  void note(const std::string& what, const std::string& where) {
    const auto at = std::ranges::find(notes_, what, &Note::what);
    if (at != notes_.end()) {
      ++at->more;
    } else {
      notes_.push_back({what, where, 0});
    }
  }

  // One line a reason, however many Linears have it.
  void say_all() {
    for (const Note& n : notes_) {
      result_.warnings.push_back(formatted(
          "{}{}: {}", n.where,
          n.more == 0 ? "" : formatted(" and {} more", n.more), n.what));
    }
  }

  struct Note {
    std::string what, where;
    std::size_t more = 0;
  };

  const OutputConfig& output_;
  const StagePlan& plan_;
  const Checkpoint& checkpoint_;
  ThreadPool& pool_;
  std::map<std::tuple<const QuantizeStage*, const PruneStage*, std::size_t,
                      std::size_t>,
           LinearWeights>
      forms_;
  std::string only_scheme_;  // of a format that has one a model
  std::vector<Note> notes_;
  OutputCheck result_;
};

}  // namespace

OutputCheck check_output(const OutputConfig& output, const StagePlan& plan,
                         const Checkpoint& checkpoint, const Architecture& arch,
                         ThreadPool& pool) {
  return OutputChecker(output, plan, checkpoint, pool).check(arch);
}

OutputCheck check_output(const OutputConfig& output, const StagePlan& plan,
                         const Checkpoint& checkpoint,
                         std::span<const Module> modules, ThreadPool& pool) {
  return OutputChecker(output, plan, checkpoint, pool).check(modules);
}

}  // namespace llmpress
