#include <nlohmann/json.hpp>

#include "compress/pipeline/reports/run_report.h"
#include "compress/pipeline/reports/sparsity_curve.h"

namespace llmpress {
namespace {

using Json = nlohmann::ordered_json;

// Names of files and tensors need not be UTF-8.
std::string text_of(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

Json json_of(const EvaluationResult& e) {
  Json json{{"model", e.model},
            {"text", e.text},
            {"text_sha256", e.text_sha256},
            {"tokenizer_sha256", e.tokenizer_sha256},
            {"tokens", e.tokens},
            {"scored_tokens", e.scored_tokens},
            {"windows", e.windows},
            {"context", e.context},
            {"protocol", e.protocol},
            {"activations", e.activations},
            {"kv_cache", e.kv_cache},
            {"nll", e.nll},
            {"perplexity", e.perplexity},
            {"perplexity_stderr", e.perplexity_stderr},
            {"weight_bytes", e.size.weight_bytes},
            {"weights", e.size.weights},
            {"bits_per_weight", e.size.bits_per_weight()},
            {"linear_bytes", e.size.linear_bytes},
            {"linear_weights", e.size.linear_weights},
            {"linear_bits_per_weight", e.size.linear_bits_per_weight()},
            {"seconds", e.seconds},
            {"tokens_per_second", e.tokens_per_second}};
  if (e.stride != 0) json["stride"] = e.stride;
  return json;
}

void add_divergence(Json& json, const Divergence& d) {
  json["kl_mean"] = d.kl_mean;
  json["kl_stderr"] = d.kl_stderr;
  json["kl_p50"] = d.kl_p50;
  json["kl_p99"] = d.kl_p99;
  json["kl_max"] = d.kl_max;
  json["top1_agreement"] = d.top1_agreement;
  json["perplexity_ratio"] = d.perplexity_ratio;
}

Json json_of(const ModelSize& size) {
  return {{"weight_bytes", size.weight_bytes},
          {"weights", size.weights},
          {"bits_per_weight", size.bits_per_weight()},
          {"linear_bytes", size.linear_bytes},
          {"linear_weights", size.linear_weights},
          {"linear_bits_per_weight", size.linear_bits_per_weight()}};
}

Json json_of(const LayerReport& l) {
  return {{"name", l.name},
          {"method", l.method},
          {"format", l.format},
          {"out", l.out},
          {"in", l.in},
          {"bytes", l.bytes},
          {"bits_per_weight", l.bits_per_weight},
          {"sparsity", l.sparsity},
          {"output_error", l.output_error},
          {"relative_error", l.relative_error},
          {"calibrated", l.calibrated},
          {"damping_fraction", l.damping_fraction},
          {"outlier_columns", l.outlier_columns},
          {"seconds", l.seconds},
          {"notes", l.notes}};
}

Json json_of(const VariantReport& v, const ModelSize& base) {
  Json json{{"name", v.name},       {"output", v.output},
            {"format", v.format},   {"size", json_of(v.size)},
            {"seconds", v.seconds}, {"notes", v.notes}};
  if (v.evaluation) json["evaluation"] = json_of(*v.evaluation);
  if (v.divergence) add_divergence(json["divergence"], *v.divergence);
  if (!v.pruning.empty()) {
    json["pruning"] = {{"method", v.pruning},
                       {"linear_nonzeros", v.linear_nonzeros},
                       {"sparsity", sparsity_of(v, base)}};
  }
  if (!v.structured.empty()) {
    json["structured"] = Json::array();
    for (const LayerReport& l : v.structured) {
      json["structured"].push_back(json_of(l));
    }
  }
  for (const TrainingReport& training : v.training) {
    json["training"].push_back(Json::parse(to_json(training)));
  }
  json["layers"] = Json::array();
  for (const LayerReport& l : v.layers) json["layers"].push_back(json_of(l));
  return json;
}

}  // namespace

std::string to_json(const EvaluationResult& result) {
  return text_of(json_of(result));
}

std::string to_json(const Comparison& comparison) {
  Json json{{"base", json_of(comparison.base)}, {"models", Json::array()}};
  for (const ComparedModel& model : comparison.models) {
    Json row = json_of(model.evaluation);
    add_divergence(row, model.divergence);
    json["models"].push_back(std::move(row));
  }
  return text_of(json);
}

std::string to_json(const RunReport& report) {
  Json json{{"llmpress_version", report.version},
            {"title", report.title},
            {"model", report.model},
            {"model_sha256", report.model_sha256},
            {"tokenizer_sha256", report.tokenizer_sha256},
            {"calibration_sha256", report.calibration_sha256},
            {"calibration_tokens", report.calibration_tokens},
            {"kernels", report.kernels},
            {"threads", report.threads},
            {"seconds", report.seconds},
            {"peak_memory_bytes", report.peak_memory_bytes},
            {"base_size", json_of(report.base_size)},
            {"notes", report.notes},
            {"recipe", report.recipe_yaml}};
  for (const RankTraffic& traffic : report.traffic) {
    json["ranks"].push_back(
        {{"bytes_sent", traffic.sent}, {"bytes_received", traffic.received}});
  }
  if (report.base) json["base"] = json_of(*report.base);
  json["variants"] = Json::array();
  for (const VariantReport& v : report.variants) {
    json["variants"].push_back(json_of(v, report.base_size));
  }
  return text_of(json);
}

}  // namespace llmpress
