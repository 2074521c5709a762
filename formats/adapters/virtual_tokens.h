// What stands before every text, as PEFT stores it: one tensor
// `prompt_embeddings` beside adapter_config.json.
//
//   PREFIX_TUNING  [tokens, 2 * layers * width]: of each layer its keys, then
//                  its values, [kv_heads, head_dim] each (arXiv:2101.00190);
//                  what a prefix_projection made of its tokens is what is
//                  stored
//   PROMPT_TUNING  [tokens, hidden]: rows of the stream (arXiv:2104.08691)
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "compress/core/matrix.h"
#include "formats/adapters/adapter_folder.h"

namespace llmpress {

struct VirtualTokens {
  AdapterFormat format = AdapterFormat::kPrefix;  // or kPrompt
  MatrixF rows{};
  // As adapter_config.json says them; kv_heads and their width for a prefix,
  // all heads and the hidden size for a prompt.
  std::size_t layers = 0, heads = 0, width = 0;
};

// Throws Error(kInvalidInput) naming the tensor or key for a shape that is not
// the configuration's, kUnsupported for an encoder's.
VirtualTokens read_virtual_tokens(const std::filesystem::path& directory);

void write_virtual_tokens(const std::filesystem::path& directory,
                          const VirtualTokens& tokens,
                          const std::string& base_model,
                          const std::map<std::string, std::string>& files);

// Columns of the keys or values of a layer, [tokens, width].
enum class PrefixPart { kKeys, kValues };
MatrixF prefix_part(const VirtualTokens& tokens, std::size_t layer,
                    PrefixPart part);
void put_prefix_part(ConstMatrixView part_rows, std::size_t layer,
                     PrefixPart part, VirtualTokens& tokens);

}  // namespace llmpress
