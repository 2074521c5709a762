// The words of a recipe for every closed set of choices: what the reader
// accepts and resolved_yaml() writes.
#pragma once

#include "compress/core/dtype.h"
#include "recipes/recipe.h"
#include "recipes/section.h"

namespace llmpress {

inline constexpr Named<Sampling> kSamplingWords[] = {
    {"random", Sampling::kRandom}, {"sequential", Sampling::kSequential}};

inline constexpr Named<ExpertPolicy> kExpertPolicyWords[] = {
    {"nearest", ExpertPolicy::kNearest},
    {"all_tokens", ExpertPolicy::kAllTokens},
    {"raise", ExpertPolicy::kRaise}};

inline constexpr Named<RangeSearch> kRangeSearchWords[] = {
    {"minmax", RangeSearch::kMinMax}, {"mse", RangeSearch::kMse}};

inline constexpr Named<DType> kFloatDTypeWords[] = {
    {"f16", DType::kF16}, {"bf16", DType::kBF16}, {"f32", DType::kF32}};

inline constexpr Named<ActivationQuant::Kind> kInputTypeWords[] = {
    {"none", ActivationQuant::Kind::kNone},
    {"int", ActivationQuant::Kind::kInt},
    {"fp8", ActivationQuant::Kind::kFp8}};

inline constexpr Named<ActivationQuant::Range> kInputRangeWords[] = {
    {"token", ActivationQuant::Range::kToken},
    {"group", ActivationQuant::Range::kGroup},
    {"tensor", ActivationQuant::Range::kTensor},
    {"static", ActivationQuant::Range::kStatic}};

inline constexpr Named<Protocol> kProtocolWords[] = {
    {"windows", Protocol::kWindows},
    {"llama.cpp", Protocol::kLlamaCpp},
    {"strided", Protocol::kStrided}};

inline constexpr Named<EvaluatedActivations> kActivationsWords[] = {
    {"stored", EvaluatedActivations::kStored},
    {"int8", EvaluatedActivations::kInt8}};

inline constexpr Named<KvCacheType> kKvCacheWords[] = {
    {"f32", KvCacheType::kF32},
    {"int8", KvCacheType::kInt8},
    {"fp8", KvCacheType::kFp8},
    {"int4", KvCacheType::kInt4}};

inline constexpr Named<KvScaleType> kKvScaleTypeWords[] = {
    {"fp8", KvScaleType::kFp8}, {"int8", KvScaleType::kInt8}};

inline constexpr Named<LearningPart> kLearningWords[] = {
    {"scales", LearningPart::kScales},
    {"zeros", LearningPart::kZeros},
    {"norms", LearningPart::kNorms},
    {"biases", LearningPart::kBiases}};
// Instead of them: everything.
inline constexpr std::string_view kEverything = "all";

inline constexpr Named<Incompatible> kIncompatibleWords[] = {
    {"llmpress", Incompatible::kOwn},
    {"refuse", Incompatible::kRefuse},
    {"skip", Incompatible::kSkip},
    {"adapt", Incompatible::kAdapt}};

// Of the kernels (compress/kernels/cpu.h).
inline constexpr std::string_view kIsaWords[] = {"scalar", "avx2",
                                                 "avx512-vnni"};

inline constexpr std::string_view kOutputFormatWords[] = {"compressed-tensors",
                                                          "safetensors",
                                                          "hdf5",
                                                          "gptq",
                                                          "awq",
                                                          "mlx",
                                                          "mxfp4",
                                                          "gguf",
                                                          "bitsandbytes",
                                                          kAdapterFormat};

}  // namespace llmpress
