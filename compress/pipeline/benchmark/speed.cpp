#include "compress/pipeline/benchmark/speed.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "compress/core/process_memory.h"
#include "compress/core/rng.h"
#include "compress/model/beam_search.h"

namespace llmpress {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Caches of sequences side by side, with room for `tokens` each.
class Sequences {
 public:
  Sequences(const Decoder& decoder, std::size_t count, std::size_t tokens)
      : decoder_(decoder), vocabulary_(decoder.architecture().vocabulary) {
    for (std::size_t s = 0; s < count; ++s) {
      caches_.push_back(decoder.make_cache(tokens));
    }
  }

  // Runs `rows` further tokens, drawn at random, of every sequence, a piece at
  // a time as a prompt is read, and makes the logits of the last one of each.
  void run(std::size_t rows, Rng& rng, ThreadPool& pool) {
    for (; rows > kPromptRows; rows -= kPromptRows) {
      (void)run_piece(kPromptRows, rng, pool);
    }
    const MatrixF hidden = run_piece(rows, rng, pool);
    MatrixF last(caches_.size(), hidden.cols());
    for (std::size_t s = 0; s < caches_.size(); ++s) {
      std::ranges::copy(hidden.row((s + 1) * rows - 1), last.row(s).begin());
    }
    decoder_.ends().logits(last.view(), pool);
  }

 private:
  MatrixF run_piece(std::size_t rows, Rng& rng, ThreadPool& pool) {
    std::vector<TokenId> tokens(rows * caches_.size());
    for (TokenId& token : tokens) {
      token = static_cast<TokenId>(rng.uniform() *
                                   static_cast<double>(vocabulary_ - 1));
    }
    std::vector<Segment> segments;
    for (KvCache& cache : caches_) {
      segments.push_back({rows, cache.tokens(), &cache});
    }
    return decoder_.forward(tokens, segments, pool);
  }

  const Decoder& decoder_;
  std::size_t vocabulary_;
  std::deque<KvCache> caches_{};
};

SpeedSpread spread_of(std::vector<double> rates) {
  std::ranges::sort(rates);
  const std::size_t n = rates.size();
  const double median =
      n % 2 == 1 ? rates[n / 2] : (rates[n / 2 - 1] + rates[n / 2]) / 2;
  return {median, rates.front(), rates.back()};
}

// The share of a block's weights that a token meets: `top` of `experts` where
// it is routed.
double share_of_experts(const BlockSpec& block, const LinearSpec& linear) {
  if (block.stages[linear.stage].groups <= 1) return 1;
  for (const Operation& op : block.operations) {
    if (const auto* const route = std::get_if<RouteOp>(&op.kind)) {
      return static_cast<double>(route->top) /
             static_cast<double>(route->experts);
    }
  }
  return 1;
}

void count_weights(const Decoder& decoder, SpeedReport& report) {
  double bytes = static_cast<double>(decoder.ends().head().bytes());
  double weights = static_cast<double>(decoder.ends().head().out()) *
                   static_cast<double>(decoder.ends().head().in());
  for (const Block& block : decoder.blocks()) {
    for (std::size_t i = 0; i < block.spec().linears.size(); ++i) {
      const LinearSpec& spec = block.spec().linears[i];
      const LinearKernel& linear = block.linear(i);
      const double share = share_of_experts(block.spec(), spec);
      bytes += share * static_cast<double>(linear.bytes());
      weights += share * static_cast<double>(spec.out * spec.in);
      if (linear.integer_activations()) {
        report.integer_activations = true;
      }
    }
  }
  report.bytes_per_token = static_cast<std::size_t>(bytes);
  report.operations_per_token = 2 * weights;
  report.weight_bytes = decoder.bytes();
  report.cache_bytes_per_token =
      decoder.make_cache(1024).bytes() / std::size_t{1024};
}

double of_limit(const SpeedReport& report, const SpeedRow& row) {
  if (row.kind == SpeedRow::Kind::kGenerate && row.sequences == 1) {
    return row.speed.median * static_cast<double>(report.bytes_per_token) /
           report.limits.read_bytes;
  }
  const double peak = report.integer_activations
                          ? report.limits.octet_operations
                          : report.limits.float_operations;
  return row.speed.median * report.operations_per_token / peak;
}

class SpeedMeter {
 public:
  SpeedMeter(const Decoder& decoder, const SpeedConfig& config,
             ThreadPool& pool, const Progress& progress)
      : decoder_(decoder), config_(config), pool_(pool), progress_(progress) {
    const std::size_t kinds =
        config.prompts.size() + (config.generate > 0 ? 1 : 0);
    total_ = kinds * config.batches.size() * config.repetitions;
  }

  SpeedRow measure(SpeedRow row) {
    std::vector<double> rates;
    const auto work = static_cast<double>(row.tokens * row.sequences);
    for (std::size_t r = 0; r < config_.repetitions; ++r) {
      llmpress::report(progress_, {"bench", done_++, total_, name_of(row)});
      rates.push_back(work / seconds_of(row));
    }
    row.speed = spread_of(std::move(rates));
    return row;
  }

 private:
  static std::string name_of(const SpeedRow& row) {
    return formatted(
        "{} {} x {}",
        row.kind == SpeedRow::Kind::kPrompt ? "prompt" : "generate",
        row.sequences, row.tokens);
  }

  double seconds_of(const SpeedRow& row) {
    Sequences sequences(decoder_, row.sequences, row.tokens + 1);
    if (row.kind == SpeedRow::Kind::kPrompt) {
      const auto start = Clock::now();
      sequences.run(row.tokens, rng_, pool_);
      return seconds_since(start);
    }
    sequences.run(1, rng_, pool_);
    const auto start = Clock::now();
    for (std::size_t t = 0; t < row.tokens; ++t) sequences.run(1, rng_, pool_);
    return seconds_since(start);
  }

  const Decoder& decoder_;
  const SpeedConfig& config_;
  ThreadPool& pool_;
  const Progress& progress_;
  Rng rng_{1};
  std::size_t done_ = 0, total_ = 0;
};

void check(const Decoder& decoder, const SpeedConfig& config) {
  std::size_t longest = config.generate + 1;
  for (const std::size_t p : config.prompts) longest = std::max(longest, p + 1);
  const std::size_t positions = decoder.architecture().max_positions;
  if (longest > positions) {
    fail(ErrorCode::kInvalidArgument,
         "bench: {} tokens, but the model has {} positions", longest,
         positions);
  }
}

}  // namespace

SpeedReport measure_speed(const Decoder& decoder, const SpeedConfig& config,
                          Isa isa, ThreadPool& pool, const Progress& progress) {
  check(decoder, config);
  SpeedReport report;
  report.model = decoder.architecture().model_type;
  report.processor = processor_name();
  report.isa = isa_name(isa);
  report.threads = pool.size();
  Rng rng(1);
  {
    Sequences first(decoder, 1, 1);
    const auto start = Clock::now();
    first.run(1, rng, pool);
    report.first_token_seconds = seconds_since(start);
  }
  count_weights(decoder, report);
  SpeedMeter meter(decoder, config, pool, progress);
  for (const std::size_t sequences : config.batches) {
    for (const std::size_t p : config.prompts) {
      report.rows.push_back(
          meter.measure({SpeedRow::Kind::kPrompt, p, sequences, {}, 0}));
    }
    if (config.generate > 0) {
      report.rows.push_back(meter.measure(
          {SpeedRow::Kind::kGenerate, config.generate, sequences, {}, 0}));
    }
  }
  report.peak_memory_bytes = peak_memory_bytes();
  report.limits = measure_limits(pool, isa);
  for (SpeedRow& row : report.rows) row.of_limit = of_limit(report, row);
  return report;
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  constexpr std::string_view kKey = "model name";
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with(kKey) && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "";
}

std::string to_json(const SpeedReport& report) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const SpeedRow& row : report.rows) {
    const bool prompt = row.kind == SpeedRow::Kind::kPrompt;
    rows.push_back({{"kind", prompt ? "prompt" : "generate"},
                    {"sequences", row.sequences},
                    {"tokens", row.tokens},
                    {"tokens_per_second", row.speed.median},
                    {"lowest", row.speed.lowest},
                    {"highest", row.speed.highest},
                    {"of_limit", row.of_limit}});
  }
  const nlohmann::ordered_json json{
      {"model", report.model},
      {"processor", report.processor},
      {"isa", report.isa},
      {"threads", report.threads},
      {"read_bytes_per_second", report.limits.read_bytes},
      {"float_operations_per_second", report.limits.float_operations},
      {"int8_operations_per_second", report.limits.octet_operations},
      {"load_seconds", report.load_seconds},
      {"first_token_seconds", report.first_token_seconds},
      {"bytes_per_token", report.bytes_per_token},
      {"operations_per_token", report.operations_per_token},
      {"integer_activations", report.integer_activations},
      {"weight_bytes", report.weight_bytes},
      {"cache_bytes_per_token", report.cache_bytes_per_token},
      {"peak_memory_bytes", report.peak_memory_bytes},
      {"rows", rows}};
  return json.dump(2);
}

}  // namespace llmpress
