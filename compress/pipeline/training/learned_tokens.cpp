#include "compress/pipeline/training/learned_tokens.h"

#include <algorithm>
#include <string>

#include "compress/core/formatted.h"
#include "compress/core/rng.h"
#include "compress/model/decoder.h"
#include "compress/model/embedding_rows.h"
#include "compress/model/prefix_places.h"

namespace llmpress {
namespace {

MatrixF normal_matrix(std::size_t rows, std::size_t cols, Rng& rng) {
  MatrixF X(rows, cols);
  for (float& x : X.data()) x = static_cast<float>(rng.normal());
  return X;
}

std::span<const TokenId> first_tokens(const TokensStart& start) {
  const std::size_t wanted = start.config->virtual_tokens;
  if (start.text.size() >= wanted) return start.text.first(wanted);
  fail(ErrorCode::kInvalidInput,
       "'num_virtual_tokens' {} begin as the first of the text, which has {}; "
       "give fewer, or 'init: random'",
       wanted, start.text.size());
}

ConstMatrixView values_of(const Parameter& parameter) {
  return {parameter.value, parameter.shape.at(0), parameter.shape.at(1)};
}

}  // namespace

std::vector<BlockPrefix> first_prefix(const TokensStart& start) {
  const Architecture& arch = *start.arch;
  const PrefixShape shape = uniform_prefix_shape(arch);
  if (start.config->start == VirtualStart::kText) {
    const std::span<const TokenId> tokens = first_tokens(start);
    const Segment all{.rows = tokens.size()};
    const ModelEnds ends(*start.base, arch, start.isa);
    return prefix_of(*start.base, arch,
                     ends.begin(tokens, {&all, 1}, *start.pool), start.isa,
                     *start.pool);
  }
  Rng rng(start.config->seed);
  std::vector<BlockPrefix> prefix(arch.layers, BlockPrefix(1));
  for (BlockPrefix& block : prefix) {
    const std::size_t tokens = start.config->virtual_tokens;
    block[0].keys = normal_matrix(tokens, shape.width(), rng);
    block[0].values = normal_matrix(tokens, shape.width(), rng);
  }
  return prefix;
}

MatrixF first_prompt(const TokensStart& start) {
  const Architecture& arch = *start.arch;
  check_prompt_possible(arch);
  if (start.config->start == VirtualStart::kText) {
    const EmbeddingRows rows(*start.base, arch.embedding, arch.vocabulary,
                             arch.input_width());
    return rows.rows(first_tokens(start));
  }
  Rng rng(start.config->seed);
  return normal_matrix(start.config->virtual_tokens, arch.hidden, rng);
}

VirtualTokens learned_prefix(std::span<const Parameter> parameters,
                             const Architecture& arch) {
  const PrefixShape shape = uniform_prefix_shape(arch);
  VirtualTokens tokens{.format = AdapterFormat::kPrefix,
                       .layers = arch.layers,
                       .heads = shape.kv_heads,
                       .width = shape.width()};
  const auto part = [&](std::size_t layer, const char* name, PrefixPart which) {
    const auto found =
        std::ranges::find(parameters,
                          formatted("{}.prefix.{}", arch.block_name(layer),
                                    std::string_view(name)),
                          &Parameter::name);
    const ConstMatrixView rows = values_of(*found);
    if (tokens.rows.empty()) {
      tokens.rows = MatrixF(rows.rows(), 2 * arch.layers * tokens.width);
    }
    put_prefix_part(rows, layer, which, tokens);
  };
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    part(layer, "keys", PrefixPart::kKeys);
    part(layer, "values", PrefixPart::kValues);
  }
  return tokens;
}

VirtualTokens learned_prompt(std::span<const Parameter> parameters,
                             const Architecture& arch) {
  const auto found = std::ranges::find(parameters, "prompt", &Parameter::name);
  return {.format = AdapterFormat::kPrompt,
          .rows = MatrixF(values_of(*found)),
          .layers = arch.layers,
          .heads = std::max<std::size_t>(1, arch.heads),
          .width = arch.hidden};
}

}  // namespace llmpress
