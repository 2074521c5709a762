#include "compress/pipeline/adapters/adapter_rounding.h"

#include <algorithm>

#include "compress/core/formatted.h"
#include "compress/model/model_check.h"
#include "quantizers/fp8.h"
#include "quantizers/hqq.h"
#include "quantizers/llm_int8.h"
#include "quantizers/quantize_result.h"
#include "quantizers/rtn.h"
#include "quantizers/table4.h"

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
};

struct RoundLike {
  ConstMatrixView W;
  const std::string& name;
  ThreadPool& pool;
  bool wide_scales = false;  // f32, where f16 does not hold them

  template <class Packed>
  WeightScheme scheme_of(const Packed& w) const {
    WeightScheme scheme = SchemeOf{}(w);
    if (wide_scales) scheme.scale_dtype = DType::kF32;
    return scheme;
  }

  PackedWeight nearest(const WeightScheme& scheme) const {
    return round_to_nearest(W, {.weights = scheme}, pool);
  }
  PackedWeight operator()(const DenseWeight& w) const {
    return make_dense(W, w.dtype);
  }
  PackedWeight operator()(const GroupedIntWeight& w) const {
    const WeightScheme scheme = scheme_of(w);
    if (w.float_zeros.empty()) return nearest(scheme);
    return quantize_hqq_weight(W, scheme, {}, pool);
  }
  PackedWeight operator()(const Int8Weight& w) const {
    return quantize_int8(W, scheme_of(w), w.outlier_columns, pool);
  }
  PackedWeight operator()(const Fp8Weight& w) const {
    return quantize_fp8(W, scheme_of(w), pool);
  }
  PackedWeight operator()(const Table4Weight& w) const {
    return quantize_table4(W, scheme_of(w), pool);
  }
  PackedWeight operator()(const MicroFp4Weight& w) const {
    return nearest(scheme_of(w));
  }
  PackedWeight operator()(const SparseWeight&) const { refuse_sparse(name); }
};

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
  PackedWeight rounded = std::visit(RoundLike{W, name, pool}, stored);
  if (scales_fit(rounded)) return rounded;
  return std::visit(RoundLike{W, name, pool, true}, stored);
}

std::optional<QuantizeConfig> config_like(const LinearWeights& stored,
                                          const std::string& name) {
  const PackedWeight& weight = stored.weight;
  if (std::holds_alternative<DenseWeight>(weight)) return std::nullopt;
  if (std::holds_alternative<SparseWeight>(weight)) refuse_sparse(name);
  QuantizeConfig config{.method = "rtn",
                        .weights = std::visit(SchemeOf{}, weight),
                        .input = stored.input};
  if (const auto* grouped = std::get_if<GroupedIntWeight>(&weight)) {
    config.method = grouped->float_zeros.empty() ? "gptq" : "hqq";
    config.gptq.act_order = !grouped->g_idx.empty();
    config.gptq.static_groups = grouped->g_idx.empty();
  } else if (const auto* int8 = std::get_if<Int8Weight>(&weight)) {
    const bool batch = stored.input.outlier_threshold > 0;
    const bool outliers = batch || !int8->outlier_columns.empty();
    config.method = outliers || config.weights.group_size == 0 ||
                            stored.input.kind != ActivationQuant::Kind::kInt
                        ? "llm_int8"
                        : "gptq";
    config.llm_int8.outliers = batch ? LlmInt8Config::Outliers::kBatch
                                     : LlmInt8Config::Outliers::kCalibrated;
    if (batch) {
      config.llm_int8.threshold =
          static_cast<double>(stored.input.outlier_threshold);
    } else if (!outliers) {
      config.llm_int8.threshold = 0;
    }
  } else if (std::holds_alternative<Table4Weight>(weight)) {
    config.method = "nf4";
  }
  return config;
}

}  // namespace llmpress
