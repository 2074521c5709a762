#include "compress/model/non_finite.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float x) { return std::isfinite(x); });
}

std::optional<std::size_t> first_bad_row(const MatrixF& X) {
  for (std::size_t t = 0; t < X.rows(); ++t) {
    if (!all_finite(X.row(t))) return t;
  }
  return std::nullopt;
}

std::string place(const std::string& module, std::size_t token) {
  return formatted("{}: its output is not finite at token {} (counted from 0)",
                   module, token);
}

}  // namespace

std::string find_non_finite(const Decoder& decoder,
                            std::span<const TokenId> tokens, ThreadPool& pool) {
  const Architecture& arch = decoder.architecture();
  const Segment segment{.rows = tokens.size(), .past = decoder.prefix_tokens()};
  BlockState state = decoder.ends().begin(tokens, {&segment, 1}, pool);
  std::string own;
  decoder.through_stages(state, [&](const Block& block, BlockState& passing) {
    if (!own.empty() || first_bad_row(passing.hidden)) return;
    block.run({&segment, 1}, passing, pool);
    if (const auto t = first_bad_row(passing.hidden)) {
      own = place(arch.block_name(block.layer()), *t);
    }
  });
  for (const std::string& found : decoder.stages().gather(own)) {
    if (!found.empty()) return found;
  }
  const MatrixF normed = decoder.ends().head_input(state.hidden.view(), pool);
  if (const auto t = first_bad_row(normed)) return place(arch.final_norm, *t);
  return "the head: its output is not finite";
}

void require_finite_logits(const Decoder& decoder,
                           std::span<const float> logits,
                           std::span<const TokenId> tokens,
                           const std::string& where, ThreadPool& pool) {
  if (all_finite(logits)) return;
  fail(ErrorCode::kNumeric, "{}: {}", where,
       find_non_finite(decoder, tokens, pool));
}

}  // namespace llmpress
