#include "compress/pipeline/evaluation/staged_states.h"

#include <cassert>
#include <utility>

#include "compress/model/state_bytes.h"

namespace llmpress {

MatrixF StagedStates::next(ThreadPool& pool) {
  const std::size_t before_first = decoder_->stages().size() - 1;
  while (steps_ < before_first) (void)step(pool);
  return step(pool);
}

MatrixF StagedStates::step(ThreadPool& pool) {
  const Ranks& stages = decoder_->stages();
  const std::size_t last = stages.size() - 1, step = steps_++;
  assert(step < batches_.size() + last);
  const auto on = [&](std::size_t stage) {  // the batch, or none
    return step < stage ? batches_.size() : step - stage;
  };
  BlockState state;
  std::string sent;
  if (const std::size_t b = on(stages.rank()); b < batches_.size()) {
    const Batch& batch = batches_[b];
    state = stages.is_first()
                ? decoder_->begin(batch.tokens, batch.segments, pool)
                : state_from_bytes(std::exchange(received_, {}));
    decoder_->run_blocks(batch.segments, state, pool);
    if (stages.rank() != last) sent = to_bytes(state);
  }
  received_ = stages.shift(sent);
  if (on(last) >= batches_.size()) return {};
  if (stages.rank() != last) {
    state.hidden = MatrixF(batches_[on(last)].tokens.size(),
                           decoder_->architecture().hidden);
  }
  stages.broadcast(state.hidden.data(), last);
  return std::move(state.hidden);
}

}  // namespace llmpress
