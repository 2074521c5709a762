// Checkpoints of karpathy/llama2.c (export.py): the weights of a Llama in one
// order, without names.
//
//   version 0  | i32 dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size,
//                seq_len | f32 ... |            vocab_size < 0: a head of its own
//     tok_embeddings, of all layers attention_norm, wq, wk, wv, wo, ffn_norm,
//     w1, w2, w3, then norm, two tables of seq_len x head_dim/2 for the rotary
//     embedding (not used), [output]
//   version 1  | "24ka" | i32 version | the seven | u8 shared head | 0 up to 256 |
//     of all layers attention_norm, ffn_norm, then norm, tok_embeddings, of all
//     layers wq, wk, wv, wo, w1, w2, w3, then [output]
//   version 2  likewise with | i32 group_size | behind the octet; what is no
//     norm as | i8 codes | f32 scales, one a group |, w = scale code
//
// The norm's epsilon is 1e-5 and the rotary embedding's base 1e4, as in run.c.
// Coordinates that turn together lie side by side: rows of wq and wk are given
// in Hugging Face's order.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "formats/containers/tensor_io.h"

namespace llmpress {

struct Llama2cModel {
  std::unique_ptr<TensorReader> reader;
  std::string config_json{};
};

// By the first octets, or for version 0, which has none of its own, by a name
// that ends in .bin and seven numbers that can be the sizes of a model.
bool is_llama2c_file(const std::filesystem::path& path);

// Throws Error(kCorruptFile) for sizes that are no model's or a file of another
// length than they need, kUnsupported for another version.
Llama2cModel open_llama2c(const std::filesystem::path& path);
Llama2cModel read_llama2c(TensorBytes file, const std::string& where);

}  // namespace llmpress
