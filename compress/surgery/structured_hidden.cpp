#include "compress/surgery/structured_hidden.h"

#include <cmath>

#include "compress/core/error.h"
#include "compress/kernels/norms.h"
#include "compress/model/model_check.h"
#include "compress/surgery/structured_reduction.h"
#include "pruning/unit_selection.h"

namespace llmpress {
namespace {

// Sums over tokens of |norm(x)| and x^2, per channel.
struct StreamMoments {
  std::vector<double> normed{}, energy{};

  // Each range of channels runs over all tokens in order.
  void add(const MatrixF& normed_rows, const MatrixF& hidden,
           ThreadPool& pool) {
    constexpr std::size_t kChannels = 64;
    normed.resize(hidden.cols());
    energy.resize(hidden.cols());
    pool.for_ranges(
        hidden.cols(), kChannels, [&](std::size_t begin, std::size_t end) {
          for (std::size_t t = 0; t < hidden.rows(); ++t) {
            for (std::size_t c = begin; c < end; ++c) {
              const auto x = static_cast<double>(hidden(t, c));
              normed[c] += std::abs(static_cast<double>(normed_rows(t, c)));
              energy[c] += x * x;
            }
          }
        });
  }

  double gain_scale(std::span<const std::size_t> kept) const {
    double all = 0, left = 0;
    for (const double e : energy) all += e;
    for (const std::size_t c : kept) left += energy[c];
    if (all == 0) return 1;
    return std::sqrt(left / static_cast<double>(kept.size()) /
                     (all / static_cast<double>(energy.size())));
  }
};

class HiddenChooser {
 public:
  HiddenChooser(const UnitChoiceJob& job, std::size_t kept,
                CalibrationStates* states, std::vector<double> importance)
      : job_(job),
        arch_(*job.arch),
        kept_(kept),
        states_(states),
        importance_(std::move(importance)) {}

  HiddenChoice choose() {
    if (states_ != nullptr) measure();
    choice_.kept = keep_most_important(ranks(), kept_);
    set_gains();
    return std::move(choice_);
  }

 private:
  std::vector<double> ranks() const {
    if (!importance_.empty()) return importance_;
    return job_.config->importance == Importance::kActivations
               ? activation_ranks()
               : weight_ranks();
  }

  void measure() {
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      report(job_.progress, {.phase = "measure channels",
                             .done = layer,
                             .total = arch_.layers,
                             .detail = arch_.block_name(layer)});
      const Block block(arch_, layer,
                        read_block(*job_.checkpoint, arch_, layer), job_.isa);
      const StreamFacts facts = stream_facts(block.spec());
      std::vector<StreamMoments> of_readers(facts.readers.size());
      for (CalibrationBatch& batch : states_->batches()) {
        block.begin(batch.state, batch.segments, *job_.pool);
        for (std::size_t s = 0; s < block.spec().stages.size(); ++s) {
          for (std::size_t r = 0; r < facts.readers.size(); ++r) {
            if (facts.readers[r].stage != s) continue;
            of_readers[r].add(batch.state.stage_input, batch.state.hidden,
                              *job_.pool);
          }
          block.run_stage(s, batch.segments, batch.state, *job_.pool);
        }
      }
      for (StreamMoments& m : of_readers) moments_.push_back(std::move(m));
    }
    measure_end();
  }

  void measure_end() {
    auto gain = read_vector(job_.checkpoint->tensors(),
                            arch_.final_norm + ".weight", arch_.hidden);
    for (float& g : gain) g += arch_.final_norm_options.offset;
    StreamMoments moments;
    for (const CalibrationBatch& batch : states_->batches()) {
      const MatrixF& hidden = batch.state.hidden;
      MatrixF normed(hidden.rows(), hidden.cols());
      rms_norm(hidden.view(), gain, arch_.final_norm_options.epsilon,
               normed.view(), *job_.pool);
      moments.add(normed, hidden, *job_.pool);
    }
    moments_.push_back(std::move(moments));
  }

  std::vector<double> activation_ranks() const {
    std::vector<std::vector<double>> parts;
    for (const StreamMoments& m : moments_) parts.push_back(m.normed);
    return combined_importance(parts);
  }

  std::vector<double> weight_ranks() const {
    std::vector<double> squares(arch_.hidden);
    const auto add = [&](const std::vector<double>& norms) {
      for (std::size_t c = 0; c < squares.size(); ++c) {
        squares[c] += norms[c] * norms[c];
      }
    };
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      const DenseBlock block =
          load_dense_block(*job_.checkpoint, arch_, layer, *job_.pool);
      add(hidden_weight_importance(arch_.block(layer), block));
    }
    for (const std::string& module : {arch_.embedding, arch_.head}) {
      if (!job_.checkpoint->has_linear(module)) continue;
      const MatrixF W = dequantize(job_.checkpoint->read_linear(module).weight);
      const UnitSlice slice{.W = W.view(), .axis = UnitAxis::kColumns};
      add(weight_importance({&slice, 1}, arch_.hidden));
    }
    for (double& s : squares) s = std::sqrt(s);
    return squares;
  }

  void set_gains() {
    const double silent = std::sqrt(static_cast<double>(arch_.hidden) /
                                    static_cast<double>(kept_));
    const auto scale = [&](std::size_t place) {
      return moments_.empty() ? silent
                              : moments_[place].gain_scale(choice_.kept);
    };
    std::size_t place = 0;
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      std::vector<double>& gains = choice_.gains.emplace_back();
      for (std::size_t r = 0;
           r < stream_facts(arch_.block(layer)).readers.size(); ++r) {
        gains.push_back(scale(place++));
      }
    }
    choice_.final_gain = scale(place);
  }

  const UnitChoiceJob& job_;
  const Architecture& arch_;
  std::size_t kept_;
  CalibrationStates* states_;
  std::vector<double> importance_;  // [hidden] by gradients, or empty
  // Of the norms of each block that read the stream, then of the final norm.
  std::vector<StreamMoments> moments_;
  HiddenChoice choice_;
};

}  // namespace

HiddenChoice choose_hidden(const UnitChoiceJob& job, std::size_t kept,
                           CalibrationStates* states,
                           std::vector<double> importance) {
  return HiddenChooser(job, kept, states, std::move(importance)).choose();
}

}  // namespace llmpress
