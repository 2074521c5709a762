#include "compress/pipeline/adapters/tokens_beside.h"

#include <utility>

#include "compress/core/formatted.h"
#include "compress/model/prefix_places.h"
#include "formats/adapters/virtual_tokens.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

std::vector<BlockPrefix> prefix_of_file(const VirtualTokens& tokens,
                                        const Architecture& arch,
                                        const fs::path& adapter) {
  const PrefixShape shape = uniform_prefix_shape(arch);
  if (tokens.layers != arch.layers || tokens.width != shape.width() ||
      tokens.heads != shape.kv_heads) {
    fail(ErrorCode::kInvalidInput,
         "{}: a prefix of {} layers with {} heads in {} columns; the model has "
         "{} with {} in {}",
         adapter, tokens.layers, tokens.heads, tokens.width, arch.layers,
         shape.kv_heads, shape.width());
  }
  std::vector<BlockPrefix> prefix;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    prefix.push_back(
        {{.keys = prefix_part(tokens, layer, PrefixPart::kKeys),
          .values = prefix_part(tokens, layer, PrefixPart::kValues)}});
  }
  return prefix;
}

}  // namespace

std::vector<BlockPrefix> tokens_beside(const Checkpoint& base,
                                       const Architecture& arch,
                                       const fs::path& adapter, Isa isa,
                                       ThreadPool& pool) {
  VirtualTokens tokens = read_virtual_tokens(adapter);
  try {
    if (tokens.format == AdapterFormat::kPrefix) {
      return prefix_of_file(tokens, arch, adapter);
    }
    check_prompt_possible(arch);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnsupported) throw;
    fail(error.code(), "{}: {}", adapter, error.what());
  }
  if (tokens.width != arch.hidden) {
    fail(ErrorCode::kInvalidInput,
         "{}: virtual tokens have {} columns, the model's stream {}", adapter,
         tokens.width, arch.hidden);
  }
  return prefix_of(base, arch, {.hidden = std::move(tokens.rows)}, isa, pool);
}

}  // namespace llmpress
