#include "formats/linears/loader_rules.h"

#include <array>
#include <variant>

#include "formats/linears/quantization_config.h"

namespace llmpress {
namespace {

template <class T>
const T* as(const LinearWeights& linear) {
  return std::get_if<T>(&linear.weight);
}

bool ragged_groups(std::string_view, const LinearWeights& l,
                   const ModuleFacts&) {
  const auto* const w = as<GroupedIntWeight>(l);
  return w != nullptr && w->group_size < w->in && w->in % w->group_size != 0;
}

bool ragged_input_groups(std::string_view, const LinearWeights& l,
                         const ModuleFacts&) {
  return l.input.kind != ActivationQuant::Kind::kNone &&
         l.input.range == ActivationQuant::Range::kGroup &&
         cols_of(l.weight) % l.input.group_size != 0;
}

bool has_group_index(std::string_view, const LinearWeights& l,
                     const ModuleFacts&) {
  const auto* const w = as<GroupedIntWeight>(l);
  return w != nullptr && !w->g_idx.empty();
}

bool has_real_zeros(std::string_view, const LinearWeights& l,
                    const ModuleFacts&) {
  const auto* const w = as<GroupedIntWeight>(l);
  return w != nullptr && !w->float_zeros.empty();
}

bool has_outliers(std::string_view, const LinearWeights& l,
                  const ModuleFacts&) {
  const auto* const w = as<Int8Weight>(l);
  return l.input.outlier_threshold > 0 ||
         (w != nullptr && !w->outlier_columns.empty());
}

bool is_e5m2(std::string_view, const LinearWeights& l, const ModuleFacts&) {
  const auto* const w = as<Fp8Weight>(l);
  return w != nullptr && w->format != DType::kF8E4M3;
}

bool is_table(std::string_view, const LinearWeights& l, const ModuleFacts&) {
  return as<Table4Weight>(l) != nullptr;
}

bool ragged_micro_groups(std::string_view, const LinearWeights& l,
                         const ModuleFacts&) {
  const auto* const w = as<MicroFp4Weight>(l);
  return w != nullptr && w->in % w->group() != 0;
}

bool is_ggml(std::string_view, const LinearWeights& l, const ModuleFacts&) {
  return as<GgmlWeight>(l) != nullptr;
}

bool is_sparse(std::string_view, const LinearWeights& l, const ModuleFacts&) {
  return as<SparseWeight>(l) != nullptr;
}

bool is_rotated(std::string_view, const LinearWeights& l, const ModuleFacts&) {
  return l.input_hadamard > 0;
}

bool is_packed_embedding(std::string_view name, const LinearWeights& l,
                         const ModuleFacts&) {
  return is_embedding_name(name) && as<DenseWeight>(l) == nullptr;
}

bool has_packed_zeros(std::string_view, const LinearWeights& l,
                      const ModuleFacts&) {
  const auto* const w = as<GroupedIntWeight>(l);
  return w != nullptr && !w->zeros.empty();
}

bool is_packed(const LinearWeights& l) { return as<DenseWeight>(l) == nullptr; }

bool is_transposed(std::string_view, const LinearWeights& l,
                   const ModuleFacts& module) {
  return module.transposed && is_packed(l);
}

bool finds_no_stack(std::string_view, const LinearWeights& l,
                    const ModuleFacts& module) {
  return module.expert == ExpertModules::kStackedOnly && is_packed(l);
}

bool is_expert_with_zeros(std::string_view name, const LinearWeights& l,
                          const ModuleFacts& module) {
  return module.expert == ExpertModules::kStacked &&
         has_packed_zeros(name, l, module);
}

bool is_int8_expert(std::string_view, const LinearWeights& l,
                    const ModuleFacts& module) {
  return module.expert == ExpertModules::kStacked &&
         as<Int8Weight>(l) != nullptr;
}

bool is_nvfp4_expert(std::string_view, const LinearWeights& l,
                     const ModuleFacts& module) {
  const auto* const w = as<MicroFp4Weight>(l);
  return module.expert == ExpertModules::kStacked && w != nullptr &&
         w->kind == MicroFp4Kind::kNvfp4;
}

// Packed integers and 4-bit floats are no tensor of the name `weight`.
bool is_read_early(std::string_view, const LinearWeights& l,
                   const ModuleFacts& module) {
  return module.weight_read_early && (as<GroupedIntWeight>(l) != nullptr ||
                                      as<MicroFp4Weight>(l) != nullptr);
}

constexpr std::array kRules{
    LoaderRule{"packed-embedding", Readers::kOnlyUs, is_packed_embedding,
               "loaders pack Linears only, not embeddings",
               "leave the embedding out of targets"},
    LoaderRule{"group-divides-inputs", Readers::kOnlyUs, ragged_groups,
               "loaders refuse a group size that does not divide the inputs",
               "take one that does, or -1, or 'output: {incompatible: adapt}' "
               "for smaller groups where needed"},
    LoaderRule{"input-groups", Readers::kOnlyUs, ragged_input_groups,
               "loaders refuse inputs in groups that do not divide them",
               "use input: {range: token}, or a group_size that divides"},
    LoaderRule{"activation-order", Readers::kOnlyUs, has_group_index,
               "actorder 'group' was removed from compressed-tensors",
               "use act_order with static_groups: true, or group_aware_order"},
    LoaderRule{"real-zeros", Readers::kOnlyUs, has_real_zeros,
               "loaders know whole zero points only",
               "take a method that rounds them"},
    LoaderRule{"int8-outliers", Readers::kOnlyUs, has_outliers,
               "LLM.int8() is no scheme of compressed-tensors",
               "write format: bitsandbytes, or method rtn with int8 inputs"},
    LoaderRule{"fp8-e5m2", Readers::kOnlyUs, is_e5m2,
               "loaders take every 8-bit float for an E4M3",
               "use weights: {type: fp8_e4m3}"},
    LoaderRule{"4-bit-table", Readers::kOnlyUs, is_table,
               "NF4 and FP4 are no schemes of compressed-tensors",
               "write format: bitsandbytes"},
    LoaderRule{"gguf-blocks", Readers::kOnlyUs, is_ggml,
               "blocks of GGUF are not known", "format: gguf"},
    LoaderRule{"micro-groups", Readers::kOnlyUs, ragged_micro_groups,
               "loaders refuse a width that is no multiple of the 16 or 32 "
               "inputs of a scale",
               "leave the Linear out, or use integers"},
    LoaderRule{"sparse-storage", Readers::kOnlyUs, is_sparse,
               "loaders of today know no sparse storage",
               "use storage: dense, which keeps the zeros"},
    LoaderRule{"online-rotation", Readers::kOnlyUs, is_rotated,
               "the rotation of its input runs here only",
               "use rotate: {online: false}"},
    LoaderRule{"expert-zeros", Readers::kNotHf, is_expert_with_zeros,
               "transformers 5.24 stacks no experts with zero points, "
               "dequantized or not",
               "load with vLLM, or use symmetric: true"},
    LoaderRule{"packed-zeros", Readers::kNotHf, has_packed_zeros,
               "transformers 5.24 with compressed-tensors 0.20 loads no "
               "asymmetric packed weights",
               "load with CompressedTensorsConfig(dequantize=True) or vLLM, or "
               "use symmetric: true"},
    LoaderRule{"conv1d", Readers::kNotHf, is_transposed,
               "transformers holds it as a Conv1D, which compressed-tensors "
               "leaves alone: it does not load there; vLLM takes packed "
               "integers, but turns int8 and FP8 round",
               "write plain numbers (format: safetensors) for transformers"},
    LoaderRule{"stacked-experts", Readers::kNotHf, finds_no_stack,
               "transformers 5.24 holds these experts as one stack and takes "
               "none that are written one by one",
               "leave them out (ignore: ['re:.*\\.experts\\..*']), or write "
               "plain numbers"},
    LoaderRule{"int8-experts", Readers::kNotHf, is_int8_expert,
               "transformers 5.24 stacks no int8 experts and refuses them",
               "use W8A16, whose integers are packed, or FP8"},
    LoaderRule{"nvfp4-experts", Readers::kNotHf, is_nvfp4_expert,
               "transformers 5.24 stacks NVFP4 experts without their global "
               "scale: it loads them and computes garbage",
               "load with vLLM, or use MXFP4"},
    LoaderRule{
        "weight-read-early", Readers::kNotHf, is_read_early,
        "the model's class in transformers 5.24 asks for 'weight' before "
        "it loads packed weights",
        "load with CompressedTensorsConfig(dequantize=True), or use FP8"},
};

}  // namespace

std::span<const LoaderRule> loader_rules() { return kRules; }

const LoaderRule* broken_rule(std::string_view linear,
                              const LinearWeights& weights,
                              const ModuleFacts& module) {
  for (const LoaderRule& rule : kRules) {  // those that only we read are first
    if (rule.broken(linear, weights, module)) return &rule;
  }
  return nullptr;
}

}  // namespace llmpress
