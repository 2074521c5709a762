#include "compress/pipeline/evaluation/staged_states.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/compress/core/thread_ranks.h"
#include "tests/compress/model/tiny_model.h"

namespace llmpress {
namespace {

TEST(StagedStates, AreThoseOfTheWholeModelForAnyNumberOfBatches) {
  const TinyShape shape{.layers = 5};
  const MemoryCheckpoint checkpoint(tiny_tensors(shape, 8), config_json(shape));
  const Decoder whole(checkpoint);
  for (const std::size_t count : {1u, 2u, 7u}) {
    std::vector<StagedStates::Batch> batches;
    for (std::size_t b = 0; b < count; ++b) {  // of different lengths
      batches.push_back({random_tokens(6 + b, shape.vocabulary, b),
                         {{.rows = 4}, {.rows = 2 + b}}});
    }
    for (const std::size_t stages : {2u, 3u}) {
      run_on_ranks(stages, [&](const Ranks& ranks) {
        ThreadPool pool(1);
        const Decoder decoder(checkpoint, {.stages = ranks});
        StagedStates states(decoder, batches);
        for (const StagedStates::Batch& batch : batches) {
          const MatrixF found = states.next(pool);
          const MatrixF wanted =
              whole.forward(batch.tokens, batch.segments, pool);
          EXPECT_TRUE(std::ranges::equal(found.data(), wanted.data()))
              << batch.tokens.size() << " tokens on " << ranks.rank() << " of "
              << stages;
        }
      });
    }
  }
}

}  // namespace
}  // namespace llmpress
