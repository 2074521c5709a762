#include "compress/pipeline/reports/training_report.h"

#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"

namespace llmpress {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(DomainPoint, loss, weight)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LossTerms, total, cross_entropy, divergence,
                                   hidden, relation, on_policy)

namespace {

using Json = nlohmann::json;

Json to_json_value(const TrainingPoint& point) {
  Json json{{"step", point.step},
            {"loss", point.loss},
            {"learning_rate", point.learning_rate},
            {"gradient_norm", point.gradient_norm}};
  if (point.evaluation) json["evaluation"] = *point.evaluation;
  if (!point.domains.empty()) json["domains"] = point.domains;
  return json;
}

// A count that is written 1e74 is none.
std::size_t count_of(const Json& json, const char* key,
                     const std::string& origin) {
  const Json& value = json.at(key);
  if (value.is_number_unsigned()) return value.get<std::size_t>();
  fail(ErrorCode::kCorruptFile, "{}: '{}' is not a whole number", origin, key);
}

TrainingPoint point_of(const Json& json, const std::string& origin) {
  TrainingPoint point{.step = count_of(json, "step", origin),
                      .loss = json.at("loss").get<LossTerms>(),
                      .learning_rate = json.at("learning_rate").get<double>(),
                      .gradient_norm = json.at("gradient_norm").get<double>()};
  if (json.contains("evaluation")) {
    point.evaluation = json.at("evaluation").get<LossTerms>();
  }
  if (json.contains("domains")) {
    point.domains = json.at("domains").get<std::vector<DomainPoint>>();
  }
  return point;
}

}  // namespace

std::string progress_to_json(const TrainingProgress& progress) {
  Json json{{"step", progress.step},
            {"rate_factor", progress.rate_factor},
            {"divergences", progress.divergences},
            {"running_loss", progress.running_loss},
            {"best_step", progress.best_step},
            {"stale", progress.stale},
            {"notes", progress.notes},
            {"curve", Json::array()}};
  if (progress.best) json["best"] = *progress.best;
  for (const DomainState& domain : progress.domains) {
    json["domains"].push_back(
        {{"weight", domain.weight}, {"drawn", domain.drawn}});
  }
  for (const TrainingPoint& point : progress.curve) {
    json["curve"].push_back(to_json_value(point));
  }
  return json.dump();
}

TrainingProgress progress_from_json(const std::string& text,
                                    const std::string& origin) {
  try {
    const Json json = Json::parse(text);
    TrainingProgress progress{
        .step = count_of(json, "step", origin),
        .rate_factor = json.at("rate_factor").get<double>(),
        .divergences = count_of(json, "divergences", origin),
        .running_loss = json.at("running_loss").get<double>(),
        .best_step = count_of(json, "best_step", origin),
        .stale = count_of(json, "stale", origin),
        .notes = json.at("notes").get<std::vector<std::string>>()};
    if (json.contains("best")) progress.best = json.at("best").get<double>();
    if (json.contains("domains")) {
      for (const Json& domain : json.at("domains")) {
        progress.domains.push_back({domain.at("weight").get<double>(),
                                    count_of(domain, "drawn", origin)});
      }
    }
    for (const Json& point : json.at("curve")) {
      progress.curve.push_back(point_of(point, origin));
    }
    return progress;
  } catch (const Json::exception& e) {
    fail(ErrorCode::kCorruptFile, "{}: {}", origin, e.what());
  }
}

std::string to_json(const TrainingReport& report) {
  return Json{{"stage", report.stage},
              {"text_sha256", report.text_sha256},
              {"parameters", report.parameters},
              {"tokens_per_step", report.tokens_per_step},
              {"steps", report.steps},
              {"held_out", report.held_out},
              {"domains", report.domains},
              {"reference_losses", report.reference_losses},
              {"stopped_early", report.stopped_early},
              {"before", report.before},
              {"after", report.after},
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
            .parameters = count_of(json, "parameters", origin),
            .tokens_per_step = count_of(json, "tokens_per_step", origin),
            .steps = count_of(json, "steps", origin),
            .domains = json.value("domains", std::vector<std::string>()),
            .reference_losses =
                json.value("reference_losses", std::vector<double>()),
            .held_out = json.at("held_out").get<bool>(),
            .stopped_early = json.at("stopped_early").get<bool>(),
            .before = json.at("before").get<LossTerms>(),
            .after = json.at("after").get<LossTerms>(),
            .seconds = json.at("seconds").get<double>(),
            .progress = progress_from_json(json.at("progress").dump(), origin)};
  } catch (const Json::exception& e) {
    fail(ErrorCode::kCorruptFile, "{}: {}", origin, e.what());
  }
}

namespace {

// Of each domain what it began with and what came of it.
void describe_domains(const TrainingReport& report,
                      std::vector<std::string>& lines) {
  const std::vector<TrainingPoint>& curve = report.progress.curve;
  const TrainingPoint* last = nullptr;
  for (const TrainingPoint& point : curve) {
    if (point.domains.size() == report.domains.size()) last = &point;
  }
  if (report.domains.empty() || last == nullptr) return;
  for (std::size_t d = 0; d < report.domains.size(); ++d) {
    const DomainPoint& first = curve.front().domains.at(d);
    lines.push_back(formatted(
        "domain {}: weight {:.3f} -> {:.3f}, {} sequences; loss {:.4f} -> "
        "{:.4f}, reference {:.4f}",
        report.domains[d], first.weight, last->domains[d].weight,
        report.progress.domains.at(d).drawn, first.loss, last->domains[d].loss,
        report.reference_losses.at(d)));
  }
}

}  // namespace

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
  describe_domains(report, lines);
  if (report.stopped_early) {
    lines.push_back(
        formatted("stopped early, {} steps were wanted", report.steps));
  }
  for (const std::string& note : report.progress.notes) lines.push_back(note);
  return lines;
}

}  // namespace llmpress
