#include "compress/pipeline/evaluation/evaluation.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/kernels/softmax.h"
#include "compress/model/non_finite.h"
#include "compress/pipeline/evaluation/staged_states.h"
#include "compress/pipeline/evaluation/streamed_states.h"

namespace llmpress {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What one model said about every scored position, in text order.
struct Scores {
  std::vector<double> nll{}, kl{};
  std::vector<char> agrees{};
  double seconds = 0;
};

// A scored position: the row of the batch whose logits predict it, and the
// token that stands there.
struct Target {
  std::size_t row;
  TokenId token;
};

struct Batch {
  std::vector<TokenId> tokens{};
  std::vector<Segment> segments{};
  std::vector<Target> targets{};
};

Batch make_batch(const EvaluationText& text,
                 std::span<const EvaluationWindow> windows) {
  Batch batch;
  for (const EvaluationWindow& window : windows) {
    const std::size_t first_row = batch.tokens.size();
    for (std::size_t i = 0; i < window.length; ++i) {
      batch.tokens.push_back(text.tokens[window.begin + i]);
    }
    if (window.bos_first) batch.tokens[first_row] = *text.bos;
    batch.segments.push_back({.rows = window.length});
    for (std::size_t i = window.score_from; i < window.length; ++i) {
      batch.targets.push_back(
          {first_row + i - 1, text.tokens[window.begin + i]});
    }
  }
  return batch;
}

MatrixF gather_rows(const MatrixF& hidden, std::span<const Target> targets) {
  MatrixF rows(targets.size(), hidden.cols());
  for (std::size_t i = 0; i < targets.size(); ++i) {
    std::ranges::copy(hidden.row(targets[i].row), rows.row(i).begin());
  }
  return rows;
}

// Logits of `targets`, timed into `scores`.
MatrixF timed_logits(const ModelUnderTest& model, const MatrixF& hidden,
                     std::span<const Target> targets, ThreadPool& pool,
                     Scores& scores) {
  const auto start = Clock::now();
  MatrixF logits =
      model.decoder->ends().logits(gather_rows(hidden, targets).view(), pool);
  scores.seconds += seconds_since(start);
  return logits;
}

void score_targets(std::span<const ModelUnderTest> models,
                   std::span<const MatrixF> hidden,
                   std::span<const Target> targets, ThreadPool& pool,
                   std::span<Scores> scores) {
  MatrixF base;
  for (std::size_t m = 0; m < models.size(); ++m) {
    const MatrixF logits =
        timed_logits(models[m], hidden[m], targets, pool, scores[m]);
    const std::size_t at = scores[m].nll.size();
    scores[m].nll.resize(at + targets.size());
    if (m > 0) {
      scores[m].kl.resize(at + targets.size());
      scores[m].agrees.resize(at + targets.size());
    }
    pool.for_ranges(targets.size(), 8, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        const auto row = logits.row(i);
        scores[m].nll[at + i] = negative_log_likelihood(row, targets[i].token);
        if (m == 0) continue;
        scores[m].kl[at + i] = kl_divergence(base.row(i), row);
        scores[m].agrees[at + i] = argmax(base.row(i)) == argmax(row);
      }
    });
    if (m == 0) base = logits;
  }
}

// Throws Error(kNumeric) if one of `nll`, the scores of `windows`, is not
// finite; the first of them is window `number` of the text.
void require_finite(const ModelUnderTest& model, const EvaluationText& text,
                    std::span<const EvaluationWindow> windows,
                    std::span<const double> nll, std::size_t number,
                    ThreadPool& pool) {
  for (std::size_t w = 0; w < windows.size(); ++w) {
    const std::size_t count = windows[w].length - windows[w].score_from;
    const bool finite = std::ranges::all_of(
        nll.first(count), [](double x) { return std::isfinite(x); });
    nll = nll.subspan(count);
    if (finite) continue;
    const Batch batch = make_batch(text, windows.subspan(w, 1));
    fail(ErrorCode::kNumeric,
         "{}: window {} (counted from 0; tokens from {}): the predictions are "
         "not finite: {}",
         model.name, number + w, windows[w].begin,
         find_non_finite(*model.decoder, batch.tokens, pool));
  }
}

// Windows that run together, in text order.
struct WindowRange {
  std::size_t first, count;
};

std::vector<WindowRange> batches_of(std::span<const EvaluationWindow> windows) {
  std::vector<WindowRange> batches;
  std::size_t done = 0;
  while (done < windows.size()) {
    const std::size_t count = std::min(
        windows.size() - done,
        evaluation_batch_tokens(windows[done].length) / windows[done].length);
    batches.push_back({done, count});
    done += count;
  }
  return batches;
}

// What comes out of a model's blocks, batch by batch in order.
class HiddenStates {
 public:
  virtual ~HiddenStates() = default;
  virtual MatrixF of(const Batch& batch, std::size_t b, ThreadPool& pool) = 0;
  // Of a batch, before it is asked for.
  virtual double seconds_before() const { return 0; }
};

class Loaded : public HiddenStates {
 public:
  explicit Loaded(const ModelUnderTest& model) : decoder_(*model.decoder) {}
  MatrixF of(const Batch& batch, std::size_t, ThreadPool& pool) override {
    return decoder_.forward(batch.tokens, batch.segments, pool);
  }

 private:
  const Decoder& decoder_;
};

// Of a model that is not in memory: all batches have been through it.
class Streamed : public HiddenStates {
 public:
  Streamed(const ModelUnderTest& model, std::vector<Batch> own,
           ThreadPool& pool, const Progress& progress)
      : states_(*model.decoder, model.scratch) {
    const auto start = Clock::now();
    for (Batch& batch : own) {
      states_.add(batch.tokens, std::move(batch.segments), pool);
    }
    states_.run(pool, progress);
    seconds_ = seconds_since(start) /
               static_cast<double>(std::max<std::size_t>(1, own.size()));
  }

  MatrixF of(const Batch&, std::size_t b, ThreadPool&) override {
    return states_.hidden(b);
  }
  double seconds_before() const override { return seconds_; }

 private:
  StreamedStates states_;
  double seconds_ = 0;
};

// Of a model whose blocks are on several ranks.
class Staged : public HiddenStates {
 public:
  Staged(const ModelUnderTest& model, std::vector<Batch> own)
      : states_(*model.decoder, batches(std::move(own))) {}

  MatrixF of(const Batch&, std::size_t, ThreadPool& pool) override {
    return states_.next(pool);
  }

 private:
  static std::vector<StagedStates::Batch> batches(std::vector<Batch> own) {
    std::vector<StagedStates::Batch> all;
    for (Batch& batch : own) {
      all.push_back({std::move(batch.tokens), std::move(batch.segments)});
    }
    return all;
  }

  StagedStates states_;
};

std::unique_ptr<HiddenStates> hidden_states(
    const ModelUnderTest& model, const EvaluationText& text,
    std::span<const EvaluationWindow> windows, std::span<const WindowRange> own,
    ThreadPool& pool, const Progress& progress) {
  const bool staged = model.decoder->stages().is_spread();
  if (!staged && !model.decoder->is_streamed()) {
    return std::make_unique<Loaded>(model);
  }
  std::vector<Batch> batches;
  for (const WindowRange& range : own) {
    batches.push_back(
        make_batch(text, windows.subspan(range.first, range.count)));
  }
  if (staged) return std::make_unique<Staged>(model, std::move(batches));
  return std::make_unique<Streamed>(model, std::move(batches), pool, progress);
}

// The first model is the base of the divergences. `b`: of this rank's batches.
std::vector<Scores> score_batch(std::span<const ModelUnderTest> models,
                                std::span<HiddenStates* const> states,
                                const EvaluationText& text,
                                std::span<const EvaluationWindow> windows,
                                const WindowRange& range, std::size_t b,
                                ThreadPool& pool) {
  std::vector<Scores> scores(models.size());
  const auto own = windows.subspan(range.first, range.count);
  const Batch batch = make_batch(text, own);
  std::vector<MatrixF> hidden;
  for (std::size_t m = 0; m < models.size(); ++m) {
    const auto start = Clock::now();
    hidden.push_back(states[m]->of(batch, b, pool));
    scores[m].seconds += states[m]->seconds_before() + seconds_since(start);
  }
  const std::span<const Target> targets = batch.targets;
  for (std::size_t t = 0; t < targets.size(); t += kEvaluatedLogitRows) {
    score_targets(
        models, hidden,
        targets.subspan(t, std::min(kEvaluatedLogitRows, targets.size() - t)),
        pool, scores);
  }
  for (std::size_t m = 0; m < models.size(); ++m) {
    require_finite(models[m], text, own, scores[m].nll, range.first, pool);
  }
  return scores;
}

void append(const Scores& part, Scores& all) {
  all.nll.insert(all.nll.end(), part.nll.begin(), part.nll.end());
  all.kl.insert(all.kl.end(), part.kl.begin(), part.kl.end());
  all.agrees.insert(all.agrees.end(), part.agrees.begin(), part.agrees.end());
}

// What every rank's batches gave for one model, in text order on all ranks.
Scores gather_scores(std::span<const Scores> own, std::size_t batches,
                     const Ranks& ranks) {
  Scores all;
  double seconds = 0;
  for (const Scores& scores : own) seconds += scores.seconds;
  for (const std::string& bytes :
       ranks.gather(bytes_of(std::span(&seconds, 1)))) {
    all.seconds = std::max(all.seconds, values_of<double>(bytes).front());
  }
  for (std::size_t b = 0; b < batches; b += ranks.size()) {
    const bool has_one = b + ranks.rank() < batches;
    const Scores none;
    const Scores& mine = has_one ? own[b / ranks.size()] : none;
    const auto nll = ranks.gather(bytes_of(std::span(mine.nll)));
    const auto kl = ranks.gather(bytes_of(std::span(mine.kl)));
    const auto agrees = ranks.gather(bytes_of(std::span(mine.agrees)));
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      append({.nll = values_of<double>(nll[r]),
              .kl = values_of<double>(kl[r]),
              .agrees = values_of<char>(agrees[r])},
             all);
    }
  }
  return all;
}

std::vector<Scores> score(std::span<const ModelUnderTest> models,
                          const EvaluationText& text,
                          std::span<const EvaluationWindow> windows,
                          ThreadPool& pool, const Progress& progress,
                          const Ranks& ranks) {
  const std::vector<WindowRange> batches = batches_of(windows);
  std::vector<WindowRange> mine;
  for (std::size_t b = 0; b < batches.size(); ++b) {
    if (ranks.owns(b)) mine.push_back(batches[b]);
  }
  std::vector<std::unique_ptr<HiddenStates>> made;
  std::vector<HiddenStates*> states;
  for (const ModelUnderTest& model : models) {
    made.push_back(hidden_states(model, text, windows, mine, pool, progress));
    states.push_back(made.back().get());
  }
  std::vector<std::vector<Scores>> own(models.size());  // [models][batches]
  for (std::size_t b = 0; b < mine.size(); ++b) {
    auto scores = score_batch(models, states, text, windows, mine[b], b, pool);
    for (std::size_t m = 0; m < models.size(); ++m) {
      own[m].push_back(std::move(scores[m]));
    }
    report(progress, {.phase = "evaluate",
                      .done = mine[b].first + mine[b].count,
                      .total = windows.size()});
  }
  std::vector<Scores> all;
  for (const auto& of_model : own) {
    all.push_back(gather_scores(of_model, batches.size(), ranks));
  }
  return all;
}

double mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) /
         static_cast<double>(values.size());
}

// Standard error of the mean.
double stderr_of_mean(std::span<const double> values, double mean_value) {
  if (values.size() < 2) return 0;
  double sum = 0;
  for (const double v : values) sum += (v - mean_value) * (v - mean_value);
  const auto n = static_cast<double>(values.size());
  return std::sqrt(sum / (n - 1) / n);
}

// Nearest-rank quantile of sorted values.
double quantile(std::span<const double> sorted, double q) {
  const auto rank = static_cast<std::size_t>(
      std::ceil(q * static_cast<double>(sorted.size())));
  return sorted[std::max<std::size_t>(rank, 1) - 1];
}

std::string_view protocol_name(Protocol protocol) {
  switch (protocol) {
    case Protocol::kWindows:
      return "windows";
    case Protocol::kLlamaCpp:
      return "llama.cpp";
    case Protocol::kStrided:
      return "strided";
  }
  return "";
}

std::string_view kv_name(KvCacheType type) {
  switch (type) {
    case KvCacheType::kF32:
      return "f32";
    case KvCacheType::kInt8:
      return "int8";
    case KvCacheType::kFp8:
      return "fp8";
    case KvCacheType::kInt4:
      return "int4";
  }
  return "";
}

// What the checkpoint itself asks for.
std::string own_kv_scheme(const Decoder& decoder) {
  const std::optional<KvScheme>& scheme = decoder.kv_scheme();
  return scheme ? ", rounded as kv_cache_scheme says: " + scheme->describe()
                : "";
}

std::string_view activations_name(EvaluatedActivations activations) {
  return activations == EvaluatedActivations::kInt8
             ? "rounded to int8 by blocks of 128"
             : "as stored";
}

EvaluationResult summarize(const ModelUnderTest& model, const Scores& scores,
                           const EvaluationText& text,
                           const EvaluateConfig& config,
                           std::span<const EvaluationWindow> windows) {
  EvaluationResult result{
      .model = model.name,
      .text = text.path,
      .text_sha256 = text.text_sha256,
      .tokenizer_sha256 = text.tokenizer_sha256,
      .protocol = std::string(protocol_name(config.protocol)),
      .kv_cache = formatted("{}{}{}", kv_name(config.kv_cache),
                            config.rotate_keys ? ", keys rotated" : "",
                            own_kv_scheme(*model.decoder)),
      .activations = std::string(activations_name(config.activations)),
      .tokens = text.tokens.size(),
      .scored_tokens = scores.nll.size(),
      .windows = windows.size(),
      .context = config.context,
      .size = model.size,
      .seconds = scores.seconds};
  if (config.protocol == Protocol::kStrided) result.stride = config.stride;
  result.nll = mean(scores.nll);
  result.perplexity = std::exp(result.nll);
  if (!std::isfinite(result.perplexity)) {
    fail(ErrorCode::kNumeric,
         "{}: the mean loss of {:g} nats has no finite perplexity", model.name,
         result.nll);
  }
  result.perplexity_stderr =
      result.perplexity * stderr_of_mean(scores.nll, result.nll);
  std::size_t run = 0;
  for (const EvaluationWindow& window : windows) run += window.length;
  result.tokens_per_second = static_cast<double>(run) / scores.seconds;
  return result;
}

Divergence divergence_of(const Scores& scores, double base_nll) {
  Divergence d;
  d.kl_mean = mean(scores.kl);
  d.kl_stderr = stderr_of_mean(scores.kl, d.kl_mean);
  std::vector<double> sorted = scores.kl;
  std::ranges::sort(sorted);
  d.kl_p50 = quantile(sorted, 0.5);
  d.kl_p99 = quantile(sorted, 0.99);
  d.kl_max = sorted.back();
  d.top1_agreement =
      static_cast<double>(std::ranges::count(scores.agrees, char{1})) /
      static_cast<double>(scores.agrees.size());
  d.perplexity_ratio = std::exp(mean(scores.nll) - base_nll);
  return d;
}

}  // namespace

KvType kv_type(KvCacheType type) {
  switch (type) {
    case KvCacheType::kF32:
      return KvType::kF32;
    case KvCacheType::kInt8:
      return KvType::kInt8;
    case KvCacheType::kFp8:
      return KvType::kFp8;
    case KvCacheType::kInt4:
      return KvType::kInt4;
  }
  return KvType::kF32;
}

InputPrecision input_precision(const EvaluateConfig& config) {
  return config.activations == EvaluatedActivations::kInt8
             ? InputPrecision::kInt8
             : InputPrecision::kExact;
}

KvFormat kv_format(const EvaluateConfig& config) {
  return {.type = kv_type(config.kv_cache), .rotate_keys = config.rotate_keys};
}

EvaluationResult evaluate(const ModelUnderTest& model,
                          const EvaluationText& text,
                          const EvaluateConfig& config, ThreadPool& pool,
                          const Progress& progress, const Ranks& ranks) {
  return compare(model, {}, text, config, pool, progress, ranks).base;
}

Comparison compare(const ModelUnderTest& base,
                   std::span<const ModelUnderTest> candidates,
                   const EvaluationText& text, const EvaluateConfig& config,
                   ThreadPool& pool, const Progress& progress,
                   const Ranks& ranks) {
  std::vector<ModelUnderTest> models{base};
  models.insert(models.end(), candidates.begin(), candidates.end());
  const std::size_t vocabulary = base.decoder->architecture().vocabulary;
  for (const ModelUnderTest& model : candidates) {
    const std::size_t other = model.decoder->architecture().vocabulary;
    if (other != vocabulary) {
      fail(ErrorCode::kInvalidInput, "{}: vocabulary of {}, the base has {}",
           model.name, other, vocabulary);
    }
  }
  const auto windows = plan_windows(text, config);
  const auto scores = score(models, text, windows, pool, progress, ranks);
  Comparison comparison;
  comparison.base = summarize(models[0], scores[0], text, config, windows);
  for (std::size_t m = 1; m < models.size(); ++m) {
    comparison.models.push_back(
        {summarize(models[m], scores[m], text, config, windows),
         divergence_of(scores[m], comparison.base.nll)});
  }
  return comparison;
}

}  // namespace llmpress
