#include "compress/pipeline/reports/training_report.h"

#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "compress/pipeline/training/training_store.h"

namespace llmpress {
namespace {

using Json = nlohmann::json;

Json terms(const LossTerms& t) {
  return {{"total", t.total},
          {"cross_entropy", t.cross_entropy},
          {"divergence", t.divergence},
          {"hidden", t.hidden}};
}

std::size_t count_of(const Json& json, const char* key) {
  const Json& value = json.at(key);
  if (value.is_number_unsigned()) return value.get<std::size_t>();
  fail(ErrorCode::kCorruptFile, "'{}' is not a whole number", key);
}

LossTerms terms_of(const Json& json) {
  return {.total = json.at("total").get<double>(),
          .cross_entropy = json.at("cross_entropy").get<double>(),
          .divergence = json.at("divergence").get<double>(),
          .hidden = json.at("hidden").get<double>()};
}

}  // namespace

std::string to_json(const TrainingReport& report) {
  return Json{{"stage", report.stage},
              {"text_sha256", report.text_sha256},
              {"parameters", report.parameters},
              {"tokens_per_step", report.tokens_per_step},
              {"steps", report.steps},
              {"held_out", report.held_out},
              {"stopped_early", report.stopped_early},
              {"before", terms(report.before)},
              {"after", terms(report.after)},
              {"seconds", report.seconds},
              {"progress", Json::parse(progress_to_json(report.progress))}}
      .dump(1);
}

TrainingReport training_report_from_json(const std::string& text,
                                         const std::string& origin) {
  try {
    const Json json = Json::parse(text);
    return {.stage = json.at("stage").get<std::string>(),
            .text_sha256 = json.at("text_sha256").get<std::string>(),
            .parameters = count_of(json, "parameters"),
            .tokens_per_step = count_of(json, "tokens_per_step"),
            .steps = count_of(json, "steps"),
            .held_out = json.at("held_out").get<bool>(),
            .stopped_early = json.at("stopped_early").get<bool>(),
            .before = terms_of(json.at("before")),
            .after = terms_of(json.at("after")),
            .seconds = json.at("seconds").get<double>(),
            .progress = progress_from_json(json.at("progress").dump(), origin)};
  } catch (const Json::exception& e) {
    fail(ErrorCode::kCorruptFile, "{}: {}", origin, e.what());
  }
}

std::vector<std::string> describe(const TrainingReport& report) {
  std::vector<std::string> lines{formatted(
      "{}: {} steps of {} tokens, {} parameters; loss {:.4f} -> {:.4f} ({})",
      report.stage, report.progress.step, report.tokens_per_step,
      report.parameters, report.before.total, report.after.total,
      report.held_out ? "held-out text" : "first sequences of the text")};
  if (report.after.divergence != 0 || report.before.divergence != 0) {
    lines.push_back(formatted(
        "distance to the teacher {:.4f} -> {:.4f}, cross-entropy {:.4f} -> "
        "{:.4f}",
        report.before.divergence, report.after.divergence,
        report.before.cross_entropy, report.after.cross_entropy));
  }
  if (report.stopped_early) {
    lines.push_back(
        formatted("stopped early, {} steps were wanted", report.steps));
  }
  for (const std::string& note : report.progress.notes) lines.push_back(note);
  return lines;
}

}  // namespace llmpress
