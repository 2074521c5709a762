#include "compress/pipeline/evaluation/streamed_states.h"

#include <utility>

namespace llmpress {

void StreamedStates::add(std::span<const TokenId> tokens,
                         std::vector<Segment> segments, ThreadPool& pool) {
  CalibrationBatch batch{.segments = std::move(segments)};
  batch.state = decoder_->ends().begin(tokens, batch.segments, pool);
  store_.add(std::move(batch));
}

void StreamedStates::run(ThreadPool& pool, const Progress& progress) {
  const std::size_t blocks = decoder_->architecture().layers;
  decoder_->for_each_block([&](const Block& block) {
    report(progress, {"stream", block.layer(), blocks,
                      decoder_->architecture().block_name(block.layer())});
    for (CalibrationBatch& batch : BatchesToChange(store_)) {
      block.run(batch.segments, batch.state, pool);
    }
  });
  report(progress, {"stream", blocks, blocks, ""});
}

}  // namespace llmpress
