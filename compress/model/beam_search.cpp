#include "compress/model/beam_search.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "compress/kernels/softmax.h"
#include "compress/model/non_finite.h"
#include "compress/model/token_choice.h"

namespace llmpress {
namespace {

struct Beam {
  BeamHypothesis hypothesis;
  KvCache cache;

  Beam(BeamHypothesis hypothesis_in, KvCache cache_in)
      : hypothesis(std::move(hypothesis_in)), cache(std::move(cache_in)) {}
};

// A beam and one more token.
struct Candidate {
  std::size_t beam = 0;
  TokenId token = 0;
  double log_probability = 0;
};

bool likelier(const Candidate& a, const Candidate& b) {
  if (a.log_probability != b.log_probability) {
    return a.log_probability > b.log_probability;
  }
  return a.beam != b.beam ? a.beam < b.beam : a.token < b.token;
}

class Search {
 public:
  Search(const Decoder& decoder, std::span<const TokenId> prompt,
         const BeamConfig& config, ThreadPool& pool)
      : decoder_(decoder), prompt_(prompt), config_(config), pool_(pool) {}

  BeamHypothesis run() {
    beams_.emplace_back(
        BeamHypothesis{},
        decoder_.make_cache(prompt_.size() + config_.max_new_tokens));
    MatrixF logits = read_prompt(decoder_, prompt_, beams_[0].cache, pool_);
    for (std::size_t step = 1;; ++step) {
      extend(candidates(logits));
      if (step == config_.max_new_tokens || beams_.empty() || settled()) break;
      logits = advance();
    }
    for (Beam& beam : beams_) ended_.push_back(std::move(beam.hypothesis));
    return *std::max_element(
        ended_.begin(), ended_.end(),
        [](const auto& a, const auto& b) { return a.mean() < b.mean(); });
  }

 private:
  bool is_stop(TokenId token) const {
    return std::find(config_.stop.begin(), config_.stop.end(), token) !=
           config_.stop.end();
  }

  // The 2 * beams likeliest, so that enough live ones remain if `beams` of
  // them stop. Likeliest first.
  std::vector<Candidate> candidates(MatrixF& logits) const {
    const std::size_t wanted = 2 * config_.beams;
    std::vector<Candidate> all;
    for (std::size_t b = 0; b < beams_.size(); ++b) {
      const std::span<float> row = logits.row(b);
      std::vector<TokenId> text(prompt_.begin(), prompt_.end());
      const BeamHypothesis& so_far = beams_[b].hypothesis;
      text.insert(text.end(), so_far.tokens.begin(), so_far.tokens.end());
      require_finite_logits(decoder_, row, text, "generation", pool_);
      penalize_in_place(row, text, config_.repetition_penalty);
      log_softmax_in_place(row);
      for (std::size_t t = 0; t < row.size(); ++t) {
        all.push_back({b, static_cast<TokenId>(t),
                       so_far.log_probability + static_cast<double>(row[t])});
      }
    }
    const std::size_t count = std::min(wanted, all.size());
    std::partial_sort(all.begin(),
                      all.begin() + static_cast<std::ptrdiff_t>(count),
                      all.end(), likelier);
    all.resize(count);
    return all;
  }

  // New beams of the likeliest candidates; those that stop leave the search.
  void extend(const std::vector<Candidate>& candidates) {
    std::vector<BeamHypothesis> next;
    std::vector<std::size_t> parents;
    for (std::size_t c = 0;
         c < candidates.size() && next.size() < config_.beams; ++c) {
      const Candidate& candidate = candidates[c];
      BeamHypothesis hypothesis = beams_[candidate.beam].hypothesis;
      hypothesis.log_probability = candidate.log_probability;
      if (is_stop(candidate.token)) {
        // A stop below the first `beams` would not have been kept.
        if (c >= config_.beams) continue;
        hypothesis.stopped = true;
        ended_.push_back(std::move(hypothesis));
        continue;
      }
      hypothesis.tokens.push_back(candidate.token);
      next.push_back(std::move(hypothesis));
      parents.push_back(candidate.beam);
    }
    adopt(std::move(next), parents);
  }

  // The last child of a beam takes its cache over, earlier ones copy it.
  void adopt(std::vector<BeamHypothesis> next,
             const std::vector<std::size_t>& parents) {
    std::vector<Beam> children;
    for (std::size_t i = 0; i < next.size(); ++i) {
      KvCache& cache = beams_[parents[i]].cache;
      const auto later = parents.begin() + static_cast<std::ptrdiff_t>(i) + 1;
      const bool last =
          std::find(later, parents.end(), parents[i]) == parents.end();
      children.emplace_back(std::move(next[i]),
                            last ? std::move(cache) : KvCache(cache));
    }
    beams_ = std::move(children);
  }

  bool settled() const {
    if (ended_.size() < config_.beams) return false;
    std::vector<double> ends, live;
    for (const auto& ended : ended_) ends.push_back(ended.mean());
    for (const Beam& beam : beams_) live.push_back(beam.hypothesis.mean());
    std::sort(ends.begin(), ends.end(), std::greater<>());
    return *std::max_element(live.begin(), live.end()) <=
           ends[config_.beams - 1];
  }

  // Logits of every live beam after its last token.
  MatrixF advance() {
    std::vector<TokenId> tokens;
    std::vector<Segment> segments;
    for (Beam& beam : beams_) {
      tokens.push_back(beam.hypothesis.tokens.back());
      segments.push_back({1, beam.cache.tokens(), &beam.cache});
    }
    const MatrixF hidden = decoder_.forward(tokens, segments, pool_);
    return decoder_.ends().logits(hidden.view(), pool_);
  }

  const Decoder& decoder_;
  std::span<const TokenId> prompt_;
  const BeamConfig& config_;
  ThreadPool& pool_;
  std::vector<Beam> beams_{};
  std::vector<BeamHypothesis> ended_{};
};

}  // namespace

double BeamHypothesis::mean() const {
  const std::size_t chosen = tokens.size() + (stopped ? 1 : 0);
  return chosen == 0 ? 0 : log_probability / static_cast<double>(chosen);
}

MatrixF read_prompt(const Decoder& decoder, std::span<const TokenId> prompt,
                    KvCache& cache, ThreadPool& pool) {
  MatrixF hidden;
  for (std::size_t begin = 0; begin < prompt.size(); begin += kPromptRows) {
    const auto piece =
        prompt.subspan(begin, std::min(kPromptRows, prompt.size() - begin));
    const Segment segment{piece.size(), cache.tokens(), &cache};
    hidden = decoder.forward(piece, {&segment, 1}, pool);
  }
  return decoder.ends().logits(hidden.view().rows_slice(hidden.rows() - 1, 1),
                               pool);
}

BeamHypothesis beam_search(const Decoder& decoder,
                           std::span<const TokenId> prompt,
                           const BeamConfig& config, ThreadPool& pool) {
  return Search(decoder, prompt, config, pool).run();
}

}  // namespace llmpress
