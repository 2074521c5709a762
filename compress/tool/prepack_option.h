// --prepack of the commands that run a model.
#pragma once

#include <memory>

#include "compress/model/prepacked_weights.h"
#include "compress/tool/session.h"

namespace CLI {
class App;
}

namespace llmpress {

void add_prepack_option(CLI::App& command, bool& prepack);

// Throws Error(kInvalidArgument) where weights are needed as they are stored:
// beside adapters, spread over ranks by rows, and with scalar kernels.
void check_prepack_possible(bool has_adapters, bool spreads_rows, Isa isa);

// `ranks`: who runs the model; the first writes for all.
std::shared_ptr<const PrepackedWeights> open_prepacked(
    const Checkpoint& checkpoint, const Ranks& ranks, Session& session);

}  // namespace llmpress
