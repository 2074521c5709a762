// A recipe carried out on a checkpoint whose architecture is not known: methods
// that need no calibration, tensor by tensor, by names and shapes
// (tensor_modules.h). Whatever they do not select goes through byte for byte.
// The artifact is for whoever knows the architecture; nothing can be evaluated.
//
// Memory is one tensor in its forms. An interrupted run starts anew: nothing
// but the temporary folder is there of it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "compress/pipeline/run/run.h"
#include "compress/pipeline/run/tensor_modules.h"
#include "compress/pipeline/run/variant_compressor.h"

namespace llmpress {

// What a person must know of such a run before it begins.
std::string model_free_note(const Checkpoint& checkpoint);

// What check_jobs() and check_memory() are to a known architecture. Throws
// Error(kUnsupported) naming the place for what needs one: calibration,
// transforms of the model, `evaluate`.
void check_model_free(const Recipe& recipe, std::span<VariantJob> jobs,
                      const Checkpoint& checkpoint,
                      const TensorModules& tensors, std::uint64_t memory_limit,
                      ThreadPool& pool);

// Sentences about tensors that are left alone, one a reason.
std::vector<std::string> left_alone(const TensorModules& tensors,
                                    const StagePlan& plan);

// Bytes at the peak: one tensor as it is stored, in float32 before and after,
// and packed.
std::size_t model_free_peak_bytes(const TensorModules& tensors);

ModelSize measure_tensors(const Checkpoint& checkpoint,
                          const TensorModules& tensors);

VariantReport compress_model_free(const RunInputs& inputs,
                                  const TensorModules& tensors,
                                  const VariantJob& job,
                                  const RunOptions& options, ThreadPool& pool);

}  // namespace llmpress
