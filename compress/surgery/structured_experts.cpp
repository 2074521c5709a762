#include "compress/surgery/structured_experts.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "compress/core/linalg.h"
#include "pruning/expert_importance.h"
#include "pruning/unit_selection.h"

namespace llmpress {
namespace {

constexpr std::size_t kProbeTokens = 4096;
constexpr std::size_t kProductFloats = std::size_t{1} << 27;
constexpr float kNever = -std::numeric_limits<float>::infinity();

// The rows of one sequence's first `rows` tokens, from `begin` on, alone.
BlockState first_tokens(const BlockState& state, std::size_t begin,
                        std::size_t rows) {
  BlockState part;
  part.hidden = MatrixF(state.hidden.view().rows_slice(begin, rows));
  for (const Activations& carried : state.carried) {
    part.carried.push_back(
        {.rows = MatrixF(carried.rows.view().rows_slice(begin, rows))});
  }
  return part;
}

class MixtureProbe {
 public:
  MixtureProbe(const ExpertChoiceJob& job, const DenseBlock& dense)
      : job_(job),
        spec_(job.arch->block(job.layer)),
        units_(expert_units(spec_).value()),
        dense_(dense),
        block_(runner_of(*job.arch, job.layer, dense, {.isa = job.isa})) {}

  const ExpertUnits& units() const { return units_; }

  ExpertImportances importances(const CalibrationStates& states) const {
    ExpertImportances importances(units_.linears.size());
    for (const CalibrationBatch& batch : states.batches()) {
      BlockState state = batch.state;
      block_.begin(state, batch.segments, *job_.pool);
      run_stages(batch.segments, 0, last_stage(), state);
      each_output(
          state, [&](std::size_t e, std::size_t begin, const MatrixF& f) {
            importances.add(
                e, std::span(state.routing->weight).subspan(begin, f.rows()),
                f.view(), units_.weighed);
          });
    }
    return importances;
  }

  // Every expert sees every token from now on.
  MixtureOutputs outputs(const CalibrationStates& states) {
    block_.route_to_all_experts();
    const std::size_t experts = units_.linears.size();
    std::size_t left = expert_probe_tokens(experts);
    std::vector<float> logits, products;
    for (const CalibrationBatch& batch : states.batches()) {
      std::size_t begin = 0;
      for (const Segment& segment : batch.segments) {
        const std::size_t rows = std::min({segment.rows, kProbeLength, left});
        if (rows != 0) {
          add_tokens(first_tokens(batch.state, begin, rows), logits, products);
        }
        begin += segment.rows;
        left -= rows;
      }
    }
    const std::size_t tokens = logits.size() / experts;
    const MatrixF all_logits(std::move(logits), tokens, experts);
    return {.experts = experts,
            .products = MatrixF(std::move(products), tokens, experts * experts),
            .route = [units = units_, bias = bias(), all_logits,
                      pool = job_.pool](const std::vector<bool>& stays) {
              return route_among(units, bias, all_logits, stays, *pool);
            }};
  }

 private:
  std::size_t stage_of(std::size_t linear) const {
    return spec_.linears[linear].stage;
  }
  // In which the experts' last Linears are.
  std::size_t last_stage() const { return stage_of(units_.linears[0].back()); }

  std::vector<float> bias() const {
    if (!units_.route->bias) return {};
    return dense_.parameters[*units_.route->bias];
  }

  // Stages [first, last), up to the input of `last`.
  void run_stages(std::span<const Segment> segments, std::size_t first,
                  std::size_t last, BlockState& state) const {
    for (std::size_t s = first; s < last; ++s) {
      block_.run_stage(s, segments, state, *job_.pool);
    }
  }

  MatrixF run_linear(std::size_t linear, ConstMatrixView X) const {
    MatrixF Y(X.rows(), spec_.linears[linear].out);
    block_.linear(linear).run(X, Y.view(), *job_.pool);
    return Y;
  }

  // Calls visit(e, first of its rows, f [rows, width]) for each expert with
  // rows; `state` is at the last stage.
  template <class Visit>
  void each_output(const BlockState& state, const Visit& visit) const {
    const Routing& routing = *state.routing;
    for (std::size_t e = 0; e < routing.experts(); ++e) {
      const std::size_t begin = routing.offsets[e];
      const std::size_t rows = routing.offsets[e + 1] - begin;
      if (rows == 0) continue;
      visit(e, begin,
            run_linear(units_.linears[e].back(),
                       state.stage_input.view().rows_slice(begin, rows)));
    }
  }

  // One sequence's logits [rows, experts] and products [rows, experts *
  // experts], behind those that are there.
  void add_tokens(BlockState state, std::vector<float>& logits,
                  std::vector<float>& products) const {
    const std::size_t experts = units_.linears.size();
    const std::size_t rows = state.hidden.rows();
    const Segment segment{.rows = rows};
    const std::size_t routing = stage_of(units_.router);
    block_.begin(state, {&segment, 1}, *job_.pool);
    run_stages({&segment, 1}, 0, routing, state);
    const MatrixF z = run_linear(units_.router, state.stage_input.view());
    logits.insert(logits.end(), z.data().begin(), z.data().end());
    run_stages({&segment, 1}, routing, last_stage(), state);
    MatrixF F;  // [rows * experts, width], a token's experts together
    each_output(state, [&](std::size_t e, std::size_t, const MatrixF& f) {
      if (F.empty()) F = MatrixF(rows * experts, f.cols());
      for (std::size_t t = 0; t < rows; ++t) {
        std::ranges::copy(f.row(t), F.row(t * experts + e).begin());
      }
    });
    const std::size_t at = products.size();
    products.resize(at + rows * experts * experts);
    for (std::size_t t = 0; t < rows; ++t) {
      const ConstMatrixView f =
          std::as_const(F).view().rows_slice(t * experts, experts);
      matmul_transposed(f, f,
                        {std::span(products).subspan(at + t * experts * experts,
                                                     experts * experts),
                         experts, experts},
                        *job_.pool);
    }
  }

  const ExpertChoiceJob& job_;
  const BlockSpec& spec_;
  ExpertUnits units_;
  const DenseBlock& dense_;
  Block block_;
};

// Importance [experts], of those that go at least; and who stays.
std::vector<std::size_t> keep_by_output_error(const MixtureOutputs& outputs,
                                              const ExpertChoiceJob& job,
                                              std::size_t groups,
                                              std::vector<double>& importance) {
  std::vector<std::size_t> gone;
  for (const RemovedUnit& removed :
       remove_by_output_error(outputs, job.kept, groups, *job.pool)) {
    importance[removed.unit] = removed.rise;
    gone.push_back(removed.unit);
  }
  std::ranges::sort(gone);
  return complement(gone, outputs.experts);
}

}  // namespace

std::size_t expert_probe_tokens(std::size_t experts) {
  return std::clamp<std::size_t>(kProductFloats / (experts * experts), 1,
                                 kProbeTokens);
}

MatrixF route_among(const ExpertUnits& units, std::span<const float> bias,
                    MatrixF logits, const std::vector<bool>& stays,
                    ThreadPool& pool) {
  RouteOp op = *units.route;
  Activations in, out;
  in.rows = std::move(logits);
  std::vector<float> choice_bias(op.experts);
  std::ranges::copy(bias, choice_bias.begin());
  // Neither in the sums of softmax nor, where scores are never below 0, chosen.
  for (std::size_t e = 0; e < op.experts; ++e) {
    if (stays[e]) continue;
    choice_bias[e] = kNever;
    for (std::size_t t = 0; t < in.rows.rows(); ++t) in.rows(t, e) = kNever;
  }
  op.bias = 0;
  MatrixF weights(in.rows.rows(), in.rows.cols());
  const std::vector<std::vector<float>> parameters{std::move(choice_bias)};
  run(op, {.parameters = parameters, .pool = &pool},
      {.in = {&in}, .last_use = {true}, .out = {&out}});
  const Routing& routing = *out.routing;
  for (std::size_t e = 0; e < routing.experts(); ++e) {
    for (std::size_t r = routing.offsets[e]; r < routing.offsets[e + 1]; ++r) {
      weights(routing.token[r], e) = units.weighed ? 1.0f : routing.weight[r];
    }
  }
  return weights;
}

MixtureOutputs probe_mixture(const ExpertChoiceJob& job,
                             const DenseBlock& block,
                             const CalibrationStates& states) {
  return MixtureProbe(job, block).outputs(states);
}

ExpertChoice choose_experts(const ExpertChoiceJob& job, const DenseBlock& block,
                            const CalibrationStates& states) {
  MixtureProbe probe(job, block);
  const std::size_t groups = probe.units().route->groups;
  const ExpertImportances measured = probe.importances(states);
  std::vector<double> importance = job.importance == ExpertImportance::kReap
                                       ? measured.reap()
                                       : measured.mass();
  ExpertChoice choice;
  choice.kept =
      job.importance == ExpertImportance::kOutputError
          ? keep_by_output_error(probe.outputs(states), job, groups, importance)
          : keep_most_important_of_groups(importance, job.kept, groups);
  const std::vector<double> shares = measured.mass_shares();
  for (const std::size_t e : complement(choice.kept, importance.size())) {
    choice.removed.push_back({e, importance[e], shares[e]});
  }
  return choice;
}

std::string_view name_of(ExpertImportance importance) {
  switch (importance) {
    case ExpertImportance::kMass:
      return "mass";
    case ExpertImportance::kReap:
      return "REAP";
    case ExpertImportance::kOutputError:
      break;
  }
  return "rise of the output's error";
}

}  // namespace llmpress
