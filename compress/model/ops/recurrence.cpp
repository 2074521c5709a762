#include "compress/model/ops/recurrence.h"

#include <cassert>
#include <vector>

namespace llmpress {

void for_each_sequence(const OpContext& context, std::size_t slot,
                       std::size_t state_size, std::size_t parts,
                       const RecurrenceStep& step) {
  assert(state_size % parts == 0);
  const auto segments = context.segments;
  std::vector<std::size_t> first(segments.size());
  std::vector<std::vector<float>> own(segments.size());
  std::vector<std::span<float>> states(segments.size());
  std::size_t row = 0;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    first[s] = row;
    row += segments[s].rows;
    if (segments[s].cache != nullptr) {
      states[s] = segments[s].cache->state({context.layer, slot});
    } else {
      own[s].resize(state_size);
      states[s] = own[s];
    }
  }
  const std::size_t size = state_size / parts;
  context.pool->for_each(segments.size() * parts, [&](std::size_t i) {
    const std::size_t s = i / parts, part = i % parts;
    step(first[s], segments[s].rows, part,
         states[s].subspan(part * size, size));
  });
}

}  // namespace llmpress
