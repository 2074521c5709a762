// A variant whose output is an adapter (OutputConfig::is_adapter): its one
// stage, `tune`, beside the model as it is.
#pragma once

#include "compress/pipeline/run/variant_compressor.h"

namespace llmpress {

// Throws Error(kInvalidArgument) if the output is an adapter and the stages are
// not one `tune` alone: a stage before it would change the model that the
// adapter belongs to, one after it would change what is not written.
void check_adapter_alone(const OutputConfig& output, const StagePlan& plan);

// What can be known of `tune` stages before they train (learned_adapter.h); an
// adapter that is to be merged wants a dense model (Error(kUnsupported) naming
// a Linear that is packed).
void check_tuning(const OutputConfig& output, const StagePlan& plan,
                  const Checkpoint& checkpoint, const Architecture& arch);

// Trains and writes it, whole or not at all; goes on from what an interrupted
// run left. The report's size is left empty.
VariantReport tune_variant(const RunInputs& inputs, const VariantJob& job,
                           const RunOptions& options, ThreadPool& pool);

// Numbers of the adapter that check_tuning() let pass.
std::size_t adapter_numbers(const StagePlan& plan, const Architecture& arch);

}  // namespace llmpress
