#include "quantizers/gptq.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/column_solver.h"
#include "compress/core/damping.h"
#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "quantizers/activation_range.h"
#include "quantizers/ggml_gptq_rounding.h"
#include "quantizers/ggml_rounding.h"
#include "quantizers/gptq_order.h"
#include "quantizers/gptq_rounding.h"
#include "quantizers/int_grid.h"
#include "quantizers/quantize_result.h"
#include "quantizers/rtn.h"

namespace llmpress {
namespace {

// H = 2 E[x x^T], the second derivative of the squared error.
constexpr float kHessianScale = 2.0f;

[[noreturn]] void reject(const QuantizeRequest& request,
                         const std::string& what) {
  fail(ErrorCode::kInvalidArgument, "{}: gptq: {}", request.name, what);
}

void check_request(const QuantizeRequest& request) {
  const GptqConfig& gptq = request.config->gptq;
  const bool blocks = request.config->weights.type == WeightType::kGgml;
  if (request.config->weights.type != WeightType::kInt && !blocks) {
    reject(request, "weights.type must be int or a block type of GGUF");
  }
  if (!blocks) check_int_scheme(request.config->weights);
  if (blocks && request.mask.size() > 0) {
    reject(request, "blocks of GGUF do not keep weights at 0");
  }
  check_weights(request.W, request.name);
  const ConstMatrixView S = second_moment_of(request);
  if (request.mask.size() > 0 && (request.mask.rows() != request.W.rows() ||
                                  request.mask.cols() != request.W.cols())) {
    reject(request, "the mask does not fit the weight");
  }
  if (S.rows() != request.W.cols() || S.cols() != request.W.cols()) {
    reject(request, "needs calibration data");
  }
  if (!(gptq.damping_fraction >= 0) || !(gptq.damping_increment > 0) ||
      !std::isfinite(gptq.damping_bound) || gptq.block_size == 0) {
    reject(request, "damping_fraction or block_size is out of range");
  }
  if (gptq.act_order && gptq.group_aware_order) {
    reject(request, "act_order and group_aware_order exclude each other");
  }
}

std::vector<float> diagonal_of(ConstMatrixView S) {
  std::vector<float> diagonal(S.rows());
  for (std::size_t i = 0; i < S.rows(); ++i) diagonal[i] = S(i, i);
  return diagonal;
}

MatrixF reorder_columns(ConstMatrixView W,
                        std::span<const std::uint32_t> column) {
  MatrixF ordered(W.rows(), W.cols());
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t p = 0; p < W.cols(); ++p) {
      ordered(o, p) = W(o, column[p]);
    }
  }
  return ordered;
}

// S with rows and columns in solve order.
MatrixF reorder_both(ConstMatrixView S, std::span<const std::uint32_t> column,
                     ThreadPool& pool) {
  MatrixF ordered(S.rows(), S.cols());
  pool.for_ranges(S.rows(), 32, [&](std::size_t begin, std::size_t end) {
    for (std::size_t p = begin; p < end; ++p) {
      const std::span<const float> from = S.row(column[p]);
      const std::span<float> to = ordered.row(p);
      for (std::size_t q = 0; q < to.size(); ++q) to[q] = from[column[q]];
    }
  });
  return ordered;
}

// Zeroes columns of W [out, in] in solve order.
void zero_columns(MatrixF& W, std::span<const std::size_t> columns) {
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (const std::size_t p : columns) W(o, p) = 0;
  }
}

// What a request shares with others, or an own one.
const DampedInverse& invert_hessian(const QuantizeRequest& request,
                                    const GptqOrder& order,
                                    SharedInverse& own) {
  const GptqConfig& gptq = request.config->gptq;
  const DampingConfig damping{.fraction = gptq.damping_fraction,
                              .policy = gptq.damping_policy,
                              .increment = gptq.damping_increment,
                              .bound = gptq.damping_bound};
  const ConstMatrixView S = second_moment_of(request);
  SharedInverse& shared = request.inverse == nullptr ? own : *request.inverse;
  const DampedInverse& inverse = shared.get(
      S, kHessianScale, damping, *request.pool, request.name,
      order.permuted ? std::span(order.column) : std::span<std::uint32_t>{});
  if (inverse.dead.size() == S.rows()) {
    fail(ErrorCode::kNumeric, "{}: gptq: every input was 0 in calibration",
         request.name);
  }
  return inverse;
}

// The ranks that solve this Linear together.
Ranks ranks_of(const QuantizeRequest& request) {
  return request.inverse == nullptr ? Ranks{} : request.inverse->ranks();
}

// Rows that this rank solves: of whole tiles of the solver, so that the others'
// do not matter to them.
Stretch own_rows(const QuantizeRequest& request) {
  const Ranks ranks = ranks_of(request);
  return share_of(request.W.rows(), kRowsOfTail, ranks.rank(), ranks.size());
}

// Of these rows, those that are solved together, of whole tiles as well.
std::vector<Stretch> slices_of(const QuantizeRequest& request, Stretch rows) {
  const std::size_t row_bytes = request.W.cols() * sizeof(float);
  const std::size_t tiles =
      std::max<std::size_t>(1, request.solved_bytes / row_bytes / kRowsOfTail);
  std::vector<Stretch> slices;
  for (std::size_t done = 0; done < rows.count;) {
    const std::size_t count = std::min(tiles * kRowsOfTail, rows.count - done);
    slices.push_back({rows.first + done, count});
    done += count;
  }
  return slices;
}

// `part` becomes rows from `first` on of `whole`.
template <class T>
void put_rows(Matrix<T> part, std::size_t first, Matrix<T>& whole) {
  if (part.rows() == whole.rows()) {
    whole = std::move(part);
    return;
  }
  std::ranges::copy(part.data(), whole.row(first).data());
}

// All rows of M [out, ...], of which each rank has filled its own.
template <class T>
void join_rows(const QuantizeRequest& request, MatrixView<T> M) {
  ranks_of(request).join(M.data(), kRowsOfTail * M.cols());
}

// Rows of W [out, in] in solve order, 0 where the inputs were and `config` says
// so.
MatrixF ordered_weight(const QuantizeRequest& request, Stretch rows,
                       const GptqOrder& order, const DampedInverse& inverse) {
  MatrixF W = reorder_columns(request.W.rows_slice(rows.first, rows.count),
                              order.column);
  if (request.config->gptq.dead_columns == DeadColumns::kZero) {
    zero_columns(W, inverse.dead);
  }
  return W;
}

// Rows of grids [out, groups].
IntGrids rows_of(const IntGrids& grids, Stretch rows) {
  return {
      .group_size = grids.group_size,
      .scales = MatrixF(grids.scales.view().rows_slice(rows.first, rows.count)),
      .zeros = Matrix<std::uint8_t>(
          grids.zeros.view().rows_slice(rows.first, rows.count))};
}

// The grids of the groups of own rows of W [out, in] as it is, before the solve.
IntGrids fit_fixed_grids(const QuantizeRequest& request, const GptqOrder& order,
                         const DampedInverse& inverse) {
  const WeightScheme& scheme = request.config->weights;
  const Stretch own = own_rows(request);
  const bool one_grid = scheme.group_size == 0;
  const Stretch fitted = one_grid ? Stretch{0, request.W.rows()} : own;
  const ConstMatrixView rows = request.W.rows_slice(fitted.first, fitted.count);
  IntGrids grids;
  if (inverse.dead.empty() ||
      request.config->gptq.dead_columns != DeadColumns::kZero) {
    grids = fit_int_grids(rows, scheme, *request.pool);
  } else {
    MatrixF W(rows);
    for (std::size_t o = 0; o < W.rows(); ++o) {
      for (const std::size_t p : inverse.dead) W(o, order.column[p]) = 0;
    }
    grids = fit_int_grids(W.view(), scheme, *request.pool);
  }
  return one_grid ? rows_of(grids, own) : grids;
}

// GPTAQ's P = alpha triu(C U^T, 1) U, C = E[(x_full - x) x^T] on H's scale.
MatrixF full_model_pull(const QuantizeRequest& request, const GptqOrder& order,
                        const MatrixF& U) {
  const MatrixF& moment = request.stats->reference_moment;
  const std::size_t in = U.rows();
  if (moment.rows() != in || moment.cols() != in) {
    reject(request, "asymmetric_calibration needs the full model's inputs");
  }
  const MatrixF C = reorder_both(moment.view(), order.column, *request.pool);
  MatrixF CU(in, in), P(in, in);
  matmul_transposed(C.view(), U.view(), CU.view(), *request.pool);
  for (std::size_t p = 0; p < in; ++p) {
    std::fill_n(CU.row(p).begin(), p + 1, 0.0f);
  }
  const double alpha = request.config->gptq.gptaq_alpha;
  matmul(CU.view(), U.view(), P.view(), *request.pool,
         kHessianScale * static_cast<float>(alpha));
  // Exactly strictly upper: the rest is a sum of products with 0.
  for (std::size_t p = 0; p < in; ++p) {
    std::fill_n(P.row(p).begin(), p + 1, 0.0f);
  }
  return P;
}

// The solver's own sum, tr(D H D^T) with H = scale S + damping I + [dead] I and
// D = W - Q, of rows of W that became Q, and what of it was added to S: into
// `of_rows` [out, 2].
void count_errors(const QuantizeRequest& request, Stretch rows,
                  const GptqOrder& order, const ColumnSolution& solution,
                  const DampedInverse& inverse, const MatrixF& Q,
                  Matrix<double>& of_rows) {
  const ConstMatrixView W = request.W.rows_slice(rows.first, rows.count);
  const bool zeroed = request.config->gptq.dead_columns == DeadColumns::kZero;
  std::vector<double> weight(W.cols(), inverse.damping);
  std::vector<float> kept(W.cols(), 1);
  for (const std::size_t p : inverse.dead) {
    weight[p] += 1;
    if (zeroed) kept[p] = 0;
  }
  for (std::size_t o = 0; o < rows.count; ++o) {
    double added = 0;
    for (std::size_t p = 0; p < W.cols(); ++p) {
      const double d = static_cast<double>(kept[p] * W(o, order.column[p])) -
                       static_cast<double>(Q(o, p));
      added += weight[p] * d * d;
    }
    of_rows(rows.first + o, 0) = solution.row_errors[o];
    of_rows(rows.first + o, 1) = added;
  }
}

// output_error by count_errors() of own rows; -1 where little of the sum is left
// after subtraction, so that rounding would show.
double known_output_error(const QuantizeRequest& request,
                          Matrix<double> of_rows) {
  join_rows(request, of_rows.view());
  double counted = 0, added = 0;
  for (std::size_t o = 0; o < of_rows.rows(); ++o) {
    counted += of_rows(o, 0);
    added += of_rows(o, 1);
  }
  const double rest = counted - added;
  if (!(rest > 0.1 * counted)) return -1;
  return rest / static_cast<double>(kHessianScale) /
         static_cast<double>(request.W.rows());
}

// The whole weight of own rows that were rounded to blocks.
GgmlWeight joined(const QuantizeRequest& request, GgmlWeight own) {
  if (!ranks_of(request).is_spread()) return own;
  GgmlWeight whole{.out = request.W.rows(), .in = own.in, .type = own.type};
  const std::size_t bytes = whole.row_bytes();
  whole.blocks.resize(whole.out * bytes);
  std::ranges::copy(
      own.blocks, whole.blocks.begin() + static_cast<std::ptrdiff_t>(
                                             own_rows(request).first * bytes));
  join_rows(request, MatrixView<std::byte>(whole.blocks, whole.out, bytes));
  return whole;
}

// The whole matrix of own rows.
template <class T>
Matrix<T> joined(const QuantizeRequest& request, Matrix<T> own) {
  if (!ranks_of(request).is_spread()) return own;
  Matrix<T> whole(request.W.rows(), own.cols());
  std::ranges::copy(own.data(),
                    whole.row(0).data() + own_rows(request).first * own.cols());
  join_rows(request, whole.view());
  return whole;
}

IntGrids joined(const QuantizeRequest& request, IntGrids own) {
  own.scales = joined(request, std::move(own.scales));
  own.zeros = joined(request, std::move(own.zeros));
  return own;
}

// On a block type of GGUF: in the order of the columns, a block a lazy batch.
QuantizeResult quantize_blocks(const QuantizeRequest& request) {
  const QuantizeConfig& config = *request.config;
  ThreadPool& pool = *request.pool;
  const std::size_t in = request.W.cols();
  const GgmlType type = fitting_ggml_type(config.weights.ggml_type, in);
  if (type == GgmlType::kF16) {
    QuantizeResult result = quantize_rtn(request);
    result.notes.push_back("kept f16: no blocks fit its inputs");
    return result;
  }
  GptqOrder order{.block_size = facts(type).elements};
  for (std::size_t i = 0; i < in; ++i) {
    order.column.push_back(static_cast<std::uint32_t>(i));
  }
  SharedInverse own;
  const DampedInverse& inverse = invert_hessian(request, order, own);
  MatrixF P;
  if (config.gptq.asymmetric_calibration) {
    P = full_model_pull(request, order, inverse.U);
  }
  const std::vector<float> importance = diagonal_of(second_moment_of(request));
  GgmlWeight weight{.out = own_rows(request).count, .in = in, .type = type};
  Matrix<double> errors(request.W.rows(), 2);
  for (const Stretch rows : slices_of(request, own_rows(request))) {
    MatrixF Q = ordered_weight(request, rows, order, inverse);
    GgmlGptqRounding rounding(Q.rows(), in, type, importance, pool);
    const ColumnSolution solution = solve_columns_in_place(
        Q.view(), inverse.U.view(), rounding.compressor(),
        {.block_size = order.block_size, .P = P.view()}, pool);
    if (P.empty()) {
      count_errors(request, rows, order, solution, inverse, Q, errors);
    }
    const GgmlWeight part = rounding.take_weight();
    weight.blocks.insert(weight.blocks.end(), part.blocks.begin(),
                         part.blocks.end());
  }
  const double error =
      P.empty() ? known_output_error(request, std::move(errors)) : -1;
  QuantizeResult result =
      finish_result(request, joined(request, std::move(weight)), error);
  result.damping_fraction = inverse.damping_fraction;
  result.notes = inverse.notes();
  if (type != config.weights.ggml_type) {
    result.notes.push_back(
        formatted("stored as {}: {} inputs are no whole number of {} blocks",
                  facts(type).name, in, facts(config.weights.ggml_type).name));
  }
  return result;
}

// Own rows on integer grids, in the order of W's columns.
struct SolvedRows {
  Matrix<std::uint8_t> codes{};
  IntGrids grids{};
  Matrix<double> errors{};  // of all rows: count_errors(); 0 with P
};

SolvedRows solve_own_rows(const QuantizeRequest& request,
                          const GptqOrder& order, const DampedInverse& inverse,
                          const IntGrids& fixed, const MatrixF& P) {
  const WeightScheme& scheme = request.config->weights;
  const Stretch own = own_rows(request);
  const std::size_t in = request.W.cols();
  const std::size_t groups =
      1 + std::size_t{*std::ranges::max_element(order.group)};
  SolvedRows solved{.codes = Matrix<std::uint8_t>(own.count, in),
                    .grids = {.group_size = resolved_group_size(scheme, in),
                              .scales = MatrixF(own.count, groups),
                              .zeros = Matrix<std::uint8_t>(own.count, groups)},
                    .errors = Matrix<double>(request.W.rows(), 2)};
  for (const Stretch rows : slices_of(request, own)) {
    const std::size_t at = rows.first - own.first;
    MatrixF Q = ordered_weight(request, rows, order, inverse);
    MatrixView<const std::uint8_t> mask;
    if (request.mask.size() > 0) {
      mask = request.mask.rows_slice(rows.first, rows.count);
    }
    const IntGrids given =
        order.fixed_grids ? rows_of(fixed, {at, rows.count}) : IntGrids{};
    GptqRounding rounding(Q.rows(), order, scheme, given, mask, *request.pool);
    const ColumnSolution solution = solve_columns_in_place(
        Q.view(), inverse.U.view(), rounding.compressor(),
        {.block_size = order.block_size, .P = P.view()}, *request.pool);
    if (P.empty()) {
      count_errors(request, rows, order, solution, inverse, Q, solved.errors);
    }
    IntGrids fitted = rounding.grids(solved.grids.group_size);
    put_rows(rounding.take_codes(), at, solved.codes);
    put_rows(std::move(fitted.scales), at, solved.grids.scales);
    put_rows(std::move(fitted.zeros), at, solved.grids.zeros);
  }
  return solved;
}

}  // namespace

QuantizeResult quantize_gptq(const QuantizeRequest& request) {
  check_request(request);
  if (request.config->weights.type == WeightType::kGgml) {
    return quantize_blocks(request);
  }
  const QuantizeConfig& config = *request.config;
  const GptqOrder order = make_gptq_order(
      diagonal_of(second_moment_of(request)), config.weights, config.gptq);
  SharedInverse own;
  const DampedInverse& inverse = invert_hessian(request, order, own);
  IntGrids fixed;
  if (order.fixed_grids) fixed = fit_fixed_grids(request, order, inverse);
  MatrixF P;
  if (config.gptq.asymmetric_calibration) {
    P = full_model_pull(request, order, inverse.U);
  }
  SolvedRows solved = solve_own_rows(request, order, inverse, fixed, P);
  GroupedIntWeight weight = pack_grouped_int(
      joined(request, std::move(solved.codes)).view(),
      joined(request, std::move(solved.grids)), config.weights, order.g_idx);
  const double error =
      P.empty() ? known_output_error(request, std::move(solved.errors)) : -1;
  QuantizeResult result =
      wants_int8(config, request.W.cols())
          ? finish_result(request, to_int8(weight), error)
          : finish_result(request, std::move(weight), error);
  result.damping_fraction = inverse.damping_fraction;
  const std::vector<std::string> notes = inverse.notes();
  result.notes.insert(result.notes.begin(), notes.begin(), notes.end());
  return result;
}

namespace {

StatsNeeds needs_of(const QuantizeConfig& config) {
  StatsNeeds needs = activation_needs(config.input);
  needs.second_moment = true;
  needs.reference_moment = config.gptq.asymmetric_calibration;
  return needs;
}

constexpr Named<DeadColumns> kDeadColumnsWords[] = {
    {"zero", DeadColumns::kZero}, {"round", DeadColumns::kRound}};

// `compat`: whose code's quirks to repeat.
constexpr Named<bool> kStaleGridWords[] = {{"none", false},
                                           {"reference", true}};

constexpr auto kGptq = &QuantizeConfig::gptq;
constexpr Setting<QuantizeConfig> kSettings[] = {
    {"act_order", "solve columns by falling Hessian diagonal",
     bool_at<kGptq, &GptqConfig::act_order>()},
    {"static_groups",
     "with `act_order`: fix all groups' grids before the solve; no `g_idx`",
     bool_at<kGptq, &GptqConfig::static_groups>()},
    {"group_aware_order",
     "order within groups and of groups; no `g_idx`; not with `act_order`",
     bool_at<kGptq, &GptqConfig::group_aware_order>()},
    {"damping_fraction", "of the mean Hessian diagonal",
     number_at<kGptq, &GptqConfig::damping_fraction>(0, 100)},
    {"damping_policy", "when the Hessian cannot be factored",
     word_at<kDampingPolicyWords, kGptq, &GptqConfig::damping_policy>()},
    {"damping_increment",
     "`raise`: added until it can, or `damping_bound` is passed",
     number_at<kGptq, &GptqConfig::damping_increment>(1e-9, 100)},
    {"damping_bound", "`raise`: the largest damping",
     number_at<kGptq, &GptqConfig::damping_bound>(0, 100)},
    {"dead_columns", "weights of inputs that were 0 in all of calibration",
     word_at<kDeadColumnsWords, kGptq, &GptqConfig::dead_columns>()},
    {"block_size",
     "columns of a lazy batch; results do not depend on it but for rounding",
     count_at<kGptq, &GptqConfig::block_size>(1, 1 << 20)},
    {"compat",
     "`reference` fits a group's grid to stale weights, as the authors' code "
     "does",
     word_at<kStaleGridWords, kGptq, &GptqConfig::stale_grid>()},
    {"asymmetric_calibration",
     "also correct the error of earlier layers (GPTAQ)",
     bool_at<kGptq, &GptqConfig::asymmetric_calibration>()},
    {"gptaq_alpha", "GPTAQ: how much of it",
     number_at<kGptq, &GptqConfig::gptaq_alpha>(0, 1),
     [](const QuantizeConfig& config) {
       return config.gptq.asymmetric_calibration;
     },
     "needs 'asymmetric_calibration: true'"},
};

std::optional<SettingFault> check_settings(const QuantizeConfig& config) {
  const GptqConfig& gptq = config.gptq;
  if (config.weights.type == WeightType::kGgml) {
    for (const auto& [key, set] :
         {std::pair{"act_order", gptq.act_order},
          std::pair{"group_aware_order", gptq.group_aware_order}}) {
      if (set) {
        return SettingFault{key,
                            "does not apply to block types of GGUF, whose "
                            "columns are solved in their order"};
      }
    }
  }
  if (gptq.group_aware_order && gptq.act_order) {
    return SettingFault{"group_aware_order",
                        "and 'act_order' exclude each other"};
  }
  if (gptq.damping_policy == DampingPolicy::kRaise &&
      gptq.damping_bound < gptq.damping_fraction) {
    return SettingFault{"damping_bound", "is below 'damping_fraction'"};
  }
  return std::nullopt;
}

// Activation order whose groups are not fixed before the solve stores g_idx.
void mark(const QuantizeConfig& config, PackedWeight& weight,
          ActivationQuant&) {
  auto* const grouped = std::get_if<GroupedIntWeight>(&weight);
  if (grouped == nullptr || !config.gptq.act_order ||
      config.gptq.static_groups || grouped->group_size >= grouped->in) {
    return;
  }
  grouped->g_idx.resize(grouped->in);
  for (std::size_t i = 0; i < grouped->in; ++i) {
    grouped->g_idx[i] = static_cast<std::uint32_t>(i / grouped->group_size);
  }
}

}  // namespace

QuantizerMethod gptq_method() {
  return {.name = "gptq",
          .summary = "rounds column by column and corrects the rest",
          .paper = "arXiv:2210.17323",
          .weights = WeightKinds::kIntegersAndBlocks,
          .needs = needs_of,
          .quantize = quantize_gptq,
          .settings = kSettings,
          .settings_in_stage = true,
          .check = check_settings,
          .solves = true,
          .shares_rows = true,
          .pays_for_removal = true,
          .mark = mark};
}

}  // namespace llmpress
