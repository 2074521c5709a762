#include "compress/pipeline/run/run_fingerprint.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "compress/model/model_files.h"
#include "compress/model/model_source.h"
#include "compress/pipeline/adapters/merge_fingerprint.h"
#include "formats/checkpoints/artifact_writer.h"

namespace llmpress {
namespace {

// Hashes of what a training stage reads beside the model.
std::string files_of(const TrainStage& train, const Stage& stage,
                     ThreadPool& pool) {
  std::string text;
  for (const DomainConfig& domain : train.domains) {
    text += sha256_of_file(domain.text);
    if (!domain.held_out.empty()) text += sha256_of_file(domain.held_out);
  }
  if (!train.text.empty()) text += sha256_of_file(train.text);
  if (!train.held_out.empty()) text += sha256_of_file(train.held_out);
  if (!train.student.config.empty()) {
    text += sha256_of_file(train.student.config);
  }
  const auto* const distill = std::get_if<DistillStage>(&stage);
  if (distill != nullptr && !distill->teacher.empty()) {
    text += model_sha256(*open_checkpoint(distill->teacher), pool);
  }
  return text;
}

}  // namespace

std::string kernels_of(Isa isa) {
  return formatted("{}, OpenBLAS {}", isa_name(isa), blas_core_name());
}

std::string fingerprint_of(const RunInputs& inputs, const VariantJob& job,
                           ThreadPool& pool) {
  std::string importance, training, adapters;
  for (const QuantizeStage* stage : job.plan.quantizing()) {
    if (!stage->importance.empty()) {
      importance += sha256_of_file(stage->importance);
    }
  }
  for (const Stage* stage : job.plan.training()) {
    training += files_of(*training_of(*stage), *stage, pool);
  }
  for (const Stage* stage : job.plan.transforms()) {
    const auto* merge = std::get_if<MergeLoraStage>(stage);
    if (merge == nullptr) continue;
    adapters += adapters_sha256({{merge->adapter, merge->scale}}, {});
  }
  std::string text = formatted(
      "\nprogram's version: {}\nresult: {}\nmodel: {}\nrecipe: {}\nkernels: "
      "{}\n",
      LLMPRESS_VERSION, job.name, inputs.model_sha256,
      sha256_hex(inputs.recipe_yaml), inputs.kernels);
  if (inputs.calibration != nullptr) {
    text += formatted("calibration tokens: {}\n", inputs.calibration->sha256);
  }
  for (const auto& [name, hashes] : {std::pair{"importance matrix", importance},
                                     std::pair{"training texts", training},
                                     std::pair{"adapter", adapters}}) {
    if (!hashes.empty()) {
      text += formatted("{}: {}\n", name, sha256_hex(hashes));
    }
  }
  return text;
}

std::string provenance_of(const RunInputs& inputs, const std::string& variant) {
  nlohmann::ordered_json json{{"llmpress_version", LLMPRESS_VERSION},
                              {"variant", variant},
                              {"model_sha256", inputs.model_sha256},
                              {"tokenizer_sha256", inputs.tokenizer_sha256}};
  if (inputs.calibration != nullptr) {
    json["calibration"] = {{"token_sha256", inputs.calibration->sha256},
                           {"sequences", inputs.calibration->sequences.size()},
                           {"tokens", inputs.calibration->tokens()}};
  }
  json["recipe"] = "recipe.yaml";
  return json.dump(2) + "\n";
}

}  // namespace llmpress
