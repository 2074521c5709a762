#include "distill/on_policy.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "compress/core/rng.h"

namespace llmpress {
namespace {

// Apart from what else is drawn for the same batch.
constexpr std::uint64_t kChoosing = 1, kWriting = 2;

Rng rng_of(const BatchDraw& draw, std::uint64_t purpose) {
  Rng seed(draw.seed);
  Rng mixed(seed.next() + draw.first);
  for (std::uint64_t i = 0; i < purpose; ++i) (void)mixed.next();
  return Rng(mixed.next());
}

// From softmax(z / temperature), token by token; of logits that are not finite
// token 0, since the loss says so.
TokenId draw_token(std::span<const float> z, double temperature, Rng& rng) {
  const double at = rng.uniform();
  const double largest = double{*std::ranges::max_element(z)};
  std::vector<double> mass(z.size());
  double sum = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    mass[i] = std::exp((double{z[i]} - largest) / temperature);
    sum += mass[i];
  }
  if (!std::isfinite(sum)) return 0;
  double left = at * sum;
  std::size_t last = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    if (mass[i] == 0) continue;
    last = i;
    left -= mass[i];
    if (left < 0) break;
  }
  return static_cast<TokenId>(last);
}

// One part of a text while it is written.
struct Part {
  std::vector<TokenId> tokens{};
  std::size_t prompt = 0, wanted = 0;
  KvCache cache;
  Rng rng;
  bool done = false;
};

class Writer {
 public:
  Writer(const TrainableModel& student, const TrainingBatch& batch,
         const WritingConfig& config, ThreadPool& pool)
      : student_(student), config_(config), pool_(pool) {
    Rng rng = rng_of(*batch.draw, kWriting);
    auto at = batch.input.tokens.begin();
    for (const std::size_t rows : batch.input.sequences) {
      const std::size_t prompt =
          std::min(config.prompt, std::max<std::size_t>(1, rows - 1));
      parts_.push_back(
          {.tokens = {at, at + static_cast<std::ptrdiff_t>(prompt)},
           .prompt = prompt,
           .wanted = rows,
           .cache = KvCache(student.architecture().cache_slots(), rows),
           .rng = Rng(rng.next()),
           .done = prompt == rows});
      at += static_cast<std::ptrdiff_t>(rows);
    }
  }

  void write() {
    while (std::ranges::any_of(parts_, [](const Part& p) { return !p.done; })) {
      step();
    }
  }

  TrainingBatch batch(const BatchDraw& draw) const {
    TrainingBatch written;
    written.draw = draw;
    for (const Part& part : parts_) {
      const auto& tokens = part.tokens;
      written.input.sequences.push_back(tokens.size());
      for (std::size_t t = 0; t < tokens.size(); ++t) {
        written.input.tokens.push_back(tokens[t]);
        const bool judged = t + 1 >= part.prompt && t + 1 < tokens.size();
        written.targets.push_back(
            judged ? static_cast<std::int32_t>(tokens[t + 1]) : -1);
      }
    }
    return written;
  }

 private:
  // One token more of every part that is not done: the prompts first.
  void step() {
    std::vector<Part*> active;
    std::vector<TokenId> tokens;
    std::vector<Segment> segments;
    for (Part& part : parts_) {
      if (part.done) continue;
      const std::size_t past = part.cache.tokens();
      tokens.insert(tokens.end(),
                    part.tokens.begin() + static_cast<std::ptrdiff_t>(past),
                    part.tokens.end());
      segments.push_back({part.tokens.size() - past, past, &part.cache});
      active.push_back(&part);
    }
    const MatrixF logits = last_logits(tokens, segments);
    pool_.for_each(active.size(), [&](std::size_t i) {
      Part& part = *active[i];
      const TokenId token = draw_token(logits.row(i).first(config_.vocabulary),
                                       config_.temperature, part.rng);
      part.tokens.push_back(token);
      part.done = part.tokens.size() == part.wanted ||
                  std::ranges::count(config_.stops, token) != 0;
    });
  }

  // Of the last row of each segment.
  MatrixF last_logits(std::span<const TokenId> tokens,
                      std::span<const Segment> segments) const {
    BlockState state = student_.ends().begin(tokens, segments, pool_);
    for (const TrainableBlock& block : student_.blocks()) {
      block.block().run(segments, state, pool_);
    }
    MatrixF last(segments.size(), state.hidden.cols());
    std::size_t row = 0;
    for (std::size_t s = 0; s < segments.size(); ++s) {
      segments[s].cache->advance(segments[s].rows);
      row += segments[s].rows;
      std::ranges::copy(state.hidden.row(row - 1), last.row(s).begin());
    }
    return student_.ends().logits(last.view(), pool_);
  }

  const TrainableModel& student_;
  const WritingConfig& config_;
  ThreadPool& pool_;
  std::vector<Part> parts_{};
};

}  // namespace

bool is_written(const TrainingBatch& batch, double share) {
  return batch.draw && rng_of(*batch.draw, kChoosing).uniform() < share;
}

TrainingBatch written_batch(const TrainableModel& student,
                            const TrainingBatch& batch,
                            const WritingConfig& config, ThreadPool& pool) {
  Writer writer(student, batch, config, pool);
  writer.write();
  return writer.batch(*batch.draw);
}

}  // namespace llmpress
