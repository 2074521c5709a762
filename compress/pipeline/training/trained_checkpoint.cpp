#include "compress/pipeline/training/trained_checkpoint.h"

#include <algorithm>
#include <string>

#include "compress/model/tensor_places.h"
#include "compress/pipeline/evaluation/model_copy.h"
#include "compress/pipeline/run/model_assembly.h"
#include "compress/pipeline/training/learned_weights.h"
#include "compress/surgery/checkpoint_overlay.h"
#include "formats/checkpoints/artifact_writer.h"

namespace llmpress {
namespace {

bool holds_packed(const Checkpoint& checkpoint, const Architecture& arch) {
  return std::ranges::any_of(arch.linear_names(), [&](const std::string& name) {
    return checkpoint.has_linear(name) &&
           checkpoint.plain_weight(name) == nullptr;
  });
}

void write_packed(const TrainedCheckpointJob& job, const Checkpoint& trained,
                  const PackedByName& packed) {
  const Architecture& arch = job.model->architecture();
  const auto writer =
      make_artifact_writer({.output = job.output,
                            .source = job.student->path(),
                            .modules = module_names(*job.student, arch)});
  ModelParts parts{.source = &trained,
                   .arch = &arch,
                   .progress = job.progress,
                   .phase = "write"};
  parts.block = [&](std::size_t layer) {
    CompressedBlock block = stored_block(trained, arch, layer);
    for (std::size_t l = 0; l < block.weights.linears.size(); ++l) {
      const auto learned = packed.find(arch.linear_name(layer, l));
      if (learned == packed.end()) continue;
      block.weights.linears[l] = learned->second;
    }
    return block;
  };
  for (const std::string& name : {arch.embedding, arch.head}) {
    const auto end = packed.find(name);
    if (end != packed.end()) parts.ends.insert(*end);
  }
  add_model(*writer, parts);
  for (const auto& [name, content] : job.files) {
    writer->add_file(name, content);
  }
  writer->finish(trained.config_json());
}

}  // namespace

void write_trained(const TrainedCheckpointJob& job) {
  const PackedByName packed = job.model->packed_linears();
  const auto trained =
      overlay(*job.student, learned_weights(job.model->architecture(),
                                            job.model->parameters(), packed));
  if (!packed.empty() ||
      holds_packed(*job.student, job.model->architecture())) {
    return write_packed(job, *trained, packed);
  }
  copy_model(
      *trained,
      {.output = job.output, .files = job.files, .progress = job.progress});
}

}  // namespace llmpress
