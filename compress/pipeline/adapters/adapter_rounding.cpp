#include "compress/pipeline/adapters/adapter_rounding.h"

#include <algorithm>

#include "compress/core/formatted.h"
#include "compress/model/model_check.h"
#include "quantizers/gptq.h"
#include "quantizers/method.h"
#include "quantizers/quantize_result.h"
#include "quantizers/rtn.h"

namespace llmpress {
namespace {

[[noreturn]] void refuse_sparse(const std::string& name) {
  fail(ErrorCode::kUnsupported,
       "Linear '{}': is sparse, and the adapter's change would fill its zeros; "
       "merge into the dense base and prune again",
       name);
}

struct SchemeOf {
  WeightScheme operator()(const DenseWeight& w) const {
    return {.type = WeightType::kFloat, .float_dtype = w.dtype};
  }
  WeightScheme operator()(const GroupedIntWeight& w) const {
    return {.bits = w.bits,
            .group_size = w.group_size == w.in
                              ? std::int64_t{-1}
                              : static_cast<std::int64_t>(w.group_size),
            .symmetric = w.symmetric,
            .scale_dtype = w.scale_dtype};
  }
  WeightScheme operator()(const Int8Weight& w) const {
    const bool whole = w.scales.size() == 1 && w.out != 1;
    return {.bits = 8,
            .group_size = whole ? 0 : -1,
            .symmetric = w.zeros.empty(),
            .scale_dtype = w.scale_dtype};
  }
  WeightScheme operator()(const Fp8Weight& w) const {
    return {.type = w.format == DType::kF8E5M2 ? WeightType::kFp8E5M2
                                               : WeightType::kFp8E4M3,
            .scale_dtype = w.scale_dtype,
            .block_rows = w.block_rows,
            .block_cols = w.block_cols};
  }
  WeightScheme operator()(const Table4Weight& w) const {
    return {.type = w.kind == Table4Kind::kNf4 ? WeightType::kNf4
                                               : WeightType::kFp4,
            .group_size = static_cast<std::int64_t>(w.block_size),
            .double_quant = w.absmax.empty()};
  }
  WeightScheme operator()(const MicroFp4Weight& w) const {
    return {.type = w.kind == MicroFp4Kind::kMxfp4 ? WeightType::kMxfp4
                                                   : WeightType::kNvfp4,
            .group_size = static_cast<std::int64_t>(w.group())};
  }
  WeightScheme operator()(const SparseWeight&) const { return {}; }
  WeightScheme operator()(const GgmlWeight& w) const {
    return {.type = WeightType::kGgml, .ggml_type = w.type};
  }
};

PackedWeight round_to_scheme(const PackedWeight& stored, ConstMatrixView W,
                             const WeightScheme& scheme, ThreadPool& pool) {
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (method.round_like == nullptr) continue;
    auto rounded = method.round_like(stored, W, scheme, pool);
    if (rounded) return *std::move(rounded);
  }
  return round_to_nearest(W, {.weights = scheme}, pool);
}

}  // namespace

bool is_packed(const Checkpoint& checkpoint, const Architecture& arch) {
  const auto packed = [&](const std::string& name) {
    return checkpoint.has_linear(name) &&
           dense_matrix(checkpoint, name) == nullptr;
  };
  return std::ranges::any_of(arch.linear_names(), packed) ||
         packed(arch.embedding) || packed(arch.head);
}

PackedWeight round_like(const PackedWeight& stored, ConstMatrixView W,
                        const std::string& name, ThreadPool& pool) {
  if (std::holds_alternative<SparseWeight>(stored)) refuse_sparse(name);
  WeightScheme scheme = std::visit(SchemeOf{}, stored);
  PackedWeight rounded = round_to_scheme(stored, W, scheme, pool);
  if (scales_fit(rounded)) return rounded;
  scheme.scale_dtype = DType::kF32;
  return round_to_scheme(stored, W, scheme, pool);
}

std::optional<QuantizeConfig> config_like(const LinearWeights& stored,
                                          const std::string& name) {
  const PackedWeight& weight = stored.weight;
  if (std::holds_alternative<DenseWeight>(weight)) return std::nullopt;
  if (std::holds_alternative<SparseWeight>(weight)) refuse_sparse(name);
  QuantizeConfig config{.weights = std::visit(SchemeOf{}, weight),
                        .input = stored.input};
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (method.made == nullptr || !method.made(weight, stored.input, config)) {
      continue;
    }
    config.method = method.name;
    return config;
  }
  // Integers that any method may have made: the best that makes them.
  const auto* const grouped = std::get_if<GroupedIntWeight>(&weight);
  if (grouped != nullptr || std::holds_alternative<Int8Weight>(weight)) {
    config.method = gptq_method().name;
    config.gptq.act_order = grouped != nullptr && !grouped->g_idx.empty();
    config.gptq.static_groups = !config.gptq.act_order;
  }
  return config;
}

}  // namespace llmpress
