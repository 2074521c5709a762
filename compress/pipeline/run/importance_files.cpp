#include "compress/pipeline/run/importance_files.h"

namespace llmpress {

ImportanceFiles::ImportanceFiles(const StagePlan& plan,
                                 const Checkpoint& checkpoint) {
  for (const QuantizeStage* stage : plan.quantizing()) {
    if (stage->importance.empty()) continue;
    files_.try_emplace(
        stage->importance, stage->importance,
        ImatrixNames(checkpoint.config_json(), checkpoint.path().string()));
  }
}

InputStats ImportanceFiles::stats_of(const QuantizeStage& stage,
                                     std::string_view linear,
                                     std::size_t in) const {
  InputStats stats;
  stats.square_mean = files_.at(stage.importance).of(linear, in);
  return stats;
}

void check_importance(const StagePlan& plan, const Checkpoint& checkpoint,
                      const Architecture& arch) {
  const ImportanceFiles files(plan, checkpoint);
  const auto check = [&](const LinearTreatment& treatment,
                         const std::string& name, std::size_t in) {
    if (treatment.quantize == nullptr || treatment.quantize->importance.empty())
      return;
    (void)files.stats_of(*treatment.quantize, name, in);
  };
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    const auto& linears = arch.block(layer).linears;
    for (std::size_t l = 0; l < linears.size(); ++l) {
      check(treatment_of(plan, arch, layer, l), arch.linear_name(layer, l),
            linears[l].in);
    }
  }
  check(plan.treatment(arch.head, ModuleRole::kHead), arch.head, arch.hidden);
}

}  // namespace llmpress
