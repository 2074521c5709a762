#include "compress/tool/prepack_option.h"

#include <CLI/CLI.hpp>
#include <string>

#include "compress/core/formatted.h"
#include "compress/model/tensor_places.h"

namespace llmpress {

void add_prepack_option(CLI::App& command, bool& prepack) {
  command.add_flag(
      "--prepack", prepack,
      "keep the weights as the kernels want them in a file beside the model "
      "(FOLDER/llmpress.prepacked, FILE.prepacked), about as large as they are "
      "in memory: later starts map it");
}

void check_prepack_possible(bool has_adapters, bool spreads_rows, Isa isa) {
  const auto refuse = [](const char* why) {
    fail(ErrorCode::kInvalidArgument,
         "--prepack: {}, which need the weights as they are stored", why);
  };
  if (has_adapters) refuse("not beside adapters");
  if (spreads_rows) refuse("not with the ranks of --tensor-parallel");
  if (isa == Isa::kScalar) refuse("not with scalar kernels");
}

std::shared_ptr<const PrepackedWeights> open_prepacked(
    const Checkpoint& checkpoint, const Ranks& ranks, Session& session) {
  return ranks.first_then_others([&] {
    return prepack(checkpoint, read_architecture(checkpoint), session.pool(),
                   session.progress(),
                   [&](const std::string& line) { session.log(line); });
  });
}

}  // namespace llmpress
