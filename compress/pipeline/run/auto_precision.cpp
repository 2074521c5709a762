#include "compress/pipeline/run/auto_precision.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "compress/calibration/calibration_states.h"
#include "compress/calibration/dense_block.h"
#include "compress/core/formatted.h"
#include "compress/kernels/softmax.h"
#include "quantizers/bit_allocation.h"
#include "quantizers/method.h"
#include "quantizers/rtn.h"

namespace llmpress {
namespace {

constexpr int kWidths[] = {2, 3, 4, 5, 6, 8};
constexpr std::size_t kProbeTokens = 2048;
// Logits that are kept at a time: probe tokens times vocabulary.
constexpr std::size_t kProbeLogits = std::size_t{1} << 25;

struct Candidate {
  std::size_t layer = 0, linear = 0;
  std::string name{};
  const QuantizeStage* stage = nullptr;  // that treats it
  std::size_t weights = 0;
  std::vector<BitOption> options{};  // of kWidths
};

// Linears of one block and one input: engines fuse them, and refuse different
// widths among them.
struct FusedCandidates {
  std::size_t layer = 0, block_stage = 0;
  std::vector<std::size_t> members{};  // indices of candidates
  std::vector<BitOption> options{};    // sums over the members
};

WeightScheme scheme_of(const QuantizeStage& stage, int bits) {
  WeightScheme scheme = stage.config.weights;
  scheme.bits = bits;
  if (bits < 4) scheme.range = RangeSearch::kMse;
  return scheme;
}

std::size_t probe_tokens(std::size_t vocabulary) {
  return std::min(kProbeTokens,
                  std::max<std::size_t>(1, kProbeLogits / vocabulary));
}

CalibrationSet probe_set(const CalibrationSet& all, std::size_t vocabulary) {
  CalibrationSet probe;
  const std::size_t limit = probe_tokens(vocabulary);
  for (const auto& sequence : all.sequences) {
    if (!probe.sequences.empty() && probe.tokens() + sequence.size() > limit) {
      break;
    }
    probe.sequences.push_back(sequence);
  }
  return probe;
}

double mean_kl(const MatrixF& base, const MatrixF& other, ThreadPool& pool) {
  std::vector<double> kl(base.rows());
  pool.for_ranges(base.rows(), 8, [&](std::size_t begin, std::size_t end) {
    for (std::size_t r = begin; r < end; ++r) {
      kl[r] = kl_divergence(base.row(r), other.row(r));
    }
  });
  double sum = 0;
  for (const double k : kl) sum += k;
  return sum / static_cast<double>(std::max<std::size_t>(kl.size(), 1));
}

class PrecisionChooser {
 public:
  explicit PrecisionChooser(const ModelPass& job)
      : job_(job), ends_(*job.checkpoint, *job.arch, job.isa) {}

  AutoPrecision choose() {
    run_base();
    for (const QuantizeStage* stage : job_.plan->quantizing()) {
      if (method_of(stage->config).chooses_precision()) choose_for(*stage);
    }
    return std::move(result_);
  }

 private:
  // The uncompressed model: its blocks, the input of each, and its logits.
  void run_base() {
    const CalibrationSet probe =
        probe_set(*job_.calibration, job_.arch->vocabulary);
    CalibrationStates states(probe, ends_, *job_.pool);
    CalibrationBatch& batch = states.batches().front();
    for (std::size_t layer = 0; layer < job_.arch->layers; ++layer) {
      blocks_.emplace_back(*job_.arch, layer,
                           read_block(*job_.checkpoint, *job_.arch, layer),
                           job_.isa);
      inputs_.push_back(batch.state);
      blocks_.back().run(batch.segments, batch.state, *job_.pool);
    }
    segments_ = batch.segments;
    logits_ = ends_.logits(batch.state.hidden.view(), *job_.pool);
  }

  double loss_from(std::size_t layer) const {
    BlockState state = inputs_[layer];
    for (std::size_t l = layer; l < blocks_.size(); ++l) {
      blocks_[l].run(segments_, state, *job_.pool);
    }
    return mean_kl(logits_, ends_.logits(state.hidden.view(), *job_.pool),
                   *job_.pool);
  }

  Candidate candidate_of(const QuantizeStage& stage, std::size_t layer,
                         std::size_t linear) const {
    const LinearSpec& spec = job_.arch->block(layer).linears[linear];
    return {.layer = layer,
            .linear = linear,
            .name = job_.arch->linear_name(layer, linear),
            .stage = &stage,
            .weights = spec.out * spec.in};
  }

  // Each rank measured those that it owns; all get all.
  void share_options(std::vector<Candidate>& candidates) const {
    for (std::size_t c = 0; c < candidates.size(); ++c) {
      std::vector<BitOption>& options = candidates[c].options;
      options = values_of<BitOption>(job_.ranks.broadcast(
          bytes_of(std::span(options)), job_.ranks.owner(c)));
    }
  }

  void measure(Candidate& candidate) {
    const std::size_t layer = candidate.layer, linear = candidate.linear;
    const LinearWeights stored =
        read_block_linear(*job_.checkpoint, *job_.arch, layer, linear);
    const MatrixF W = dequantize(stored.weight);
    for (const int bits : kWidths) {
      QuantizeConfig config = candidate.stage->config;
      config.weights = scheme_of(*candidate.stage, bits);
      LinearWeights rounded = stored;
      rounded.weight = round_to_nearest(W.view(), config, *job_.pool);
      rounded.input = config.input;
      blocks_[layer].replace_linear(linear, rounded);
      candidate.options.push_back(
          {.bytes = stored_bytes(rounded.weight), .loss = loss_from(layer)});
    }
    blocks_[layer].replace_linear(linear, stored);
  }

  std::vector<Candidate> measure_all(const QuantizeStage& stage) {
    std::vector<Candidate> candidates;
    std::size_t total = 0, done = 0;
    for (std::size_t layer = 0; layer < job_.arch->layers; ++layer) {
      total += job_.arch->block(layer).linears.size();
    }
    for (std::size_t layer = 0; layer < job_.arch->layers; ++layer) {
      for (std::size_t l = 0; l < job_.arch->block(layer).linears.size(); ++l) {
        report(job_.progress, {.phase = "measure sensitivity",
                               .done = done++,
                               .total = total,
                               .detail = job_.arch->linear_name(layer, l)});
        const LinearTreatment treatment =
            treatment_of(*job_.plan, *job_.arch, layer, l);
        if (treatment.written != &stage || treatment.quantize == nullptr) {
          continue;
        }
        const bool own = job_.ranks.owns(candidates.size());
        candidates.push_back(candidate_of(*treatment.quantize, layer, l));
        if (own) measure(candidates.back());
      }
    }
    share_options(candidates);
    report(job_.progress,
           {.phase = "measure sensitivity", .done = total, .total = total});
    return candidates;
  }

  static std::size_t budget_of(const QuantizeStage& stage,
                               const std::vector<Candidate>& candidates) {
    if (stage.target_bytes)
      return static_cast<std::size_t>(*stage.target_bytes);
    std::size_t weights = 0;
    for (const Candidate& c : candidates) weights += c.weights;
    return static_cast<std::size_t>(stage.target_bits.value_or(4.5) *
                                    static_cast<double>(weights) / 8);
  }

  std::vector<FusedCandidates> fuse(
      const std::vector<Candidate>& candidates) const {
    std::vector<FusedCandidates> fused;
    for (std::size_t c = 0; c < candidates.size(); ++c) {
      const std::size_t layer = candidates[c].layer;
      const std::size_t block_stage =
          job_.arch->block(layer).linears[candidates[c].linear].stage;
      auto at = std::ranges::find_if(fused, [&](const FusedCandidates& f) {
        return f.layer == layer && f.block_stage == block_stage;
      });
      if (at == fused.end()) {
        at = fused.insert(
            at, {.layer = layer,
                 .block_stage = block_stage,
                 .options = std::vector<BitOption>(std::size(kWidths))});
      }
      at->members.push_back(c);
      for (std::size_t b = 0; b < std::size(kWidths); ++b) {
        at->options[b].bytes += candidates[c].options[b].bytes;
        at->options[b].loss += candidates[c].options[b].loss;
      }
    }
    return fused;
  }

  void choose_for(const QuantizeStage& stage) {
    const std::vector<Candidate> candidates = measure_all(stage);
    if (candidates.empty()) return;
    const std::vector<FusedCandidates> fused = fuse(candidates);
    std::vector<std::vector<BitOption>> options;
    for (const FusedCandidates& f : fused) options.push_back(f.options);
    const std::size_t budget = budget_of(stage, candidates);
    const auto allocation = allocate_bits(options, budget);
    if (!allocation) {
      fail(
          ErrorCode::kInvalidArgument,
          "{}: a budget of {} bytes is below the smallest that {} Linears take",
          stage.position.to_string(), budget, candidates.size());
    }
    for (std::size_t f = 0; f < fused.size(); ++f) {
      const int bits = kWidths[allocation->choice[f]];
      for (const std::size_t c : fused[f].members) {
        QuantizeStage chosen = *candidates[c].stage;
        chosen.config.method = stage.config.solver;
        chosen.config.weights = scheme_of(chosen, bits);
        result_.stages[candidates[c].name] = std::move(chosen);
      }
    }
    result_.predicted_loss += allocation->loss;
    result_.bytes += allocation->bytes;
    char line[160];
    std::snprintf(line, sizeof(line),
                  "auto: %zu Linears in %zu of %zu bytes, predicted KL %.6f "
                  "(sum over Linears, on %zu calibration tokens)",
                  candidates.size(), allocation->bytes, budget,
                  allocation->loss, inputs_.front().hidden.rows());
    result_.notes.push_back(line);
  }

  const ModelPass& job_;
  ModelEnds ends_;
  std::vector<Block> blocks_;
  std::vector<BlockState> inputs_;  // of each block
  std::vector<Segment> segments_;
  MatrixF logits_;
  AutoPrecision result_;
};

}  // namespace

bool wants_auto_precision(const StagePlan& plan) {
  return std::ranges::any_of(plan.quantizing(), [](const QuantizeStage* s) {
    return method_of(s->config).chooses_precision();
  });
}

std::size_t auto_precision_bytes(const Architecture& arch) {
  const std::size_t tokens = probe_tokens(arch.vocabulary);
  std::size_t blocks = 0;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (const LinearSpec& linear : arch.block(layer).linears) {
      blocks += linear.out * linear.in;
    }
  }
  return sizeof(float) * (blocks + arch.layers * tokens * arch.hidden +
                          2 * tokens * arch.vocabulary);
}

AutoPrecision choose_precision(const ModelPass& job) {
  return PrecisionChooser(job).choose();
}

}  // namespace llmpress
