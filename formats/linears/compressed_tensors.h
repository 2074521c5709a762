// Linears as compressed-tensors stores them (vLLM's format; read and written by
// llm-compressor and transformers). `p` is the Linear's name.
//
//   pack-quantized     p.weight_packed I32 [out, ceil(in bits / 32)], codes
//   packed
//                      from the low bits up; p.weight_scale [out, groups];
//                      p.weight_shape I64 [2]; p.weight_zero_point I32
//                      [ceil(out bits / 32), groups] packed along dimension 0;
//                      p.weight_g_idx I32 [in]
//   int-quantized      p.weight I8 [out, in], p.weight_scale [out, 1] or [1],
//                      p.weight_zero_point I8
//   float-quantized    p.weight F8_E4M3 [out, in], p.weight_scale [1], [out, 1]
//   or
//                      [ceil(out / rows), ceil(in / cols)]
//   mxfp8-quantized    the same with p.weight_scale U8 [out, in / 32] (E8M0)
//   nvfp4-pack-quantized  p.weight_packed U8 [out, in / 2] even column low,
//                      p.weight_scale F8_E4M3 [out, in / 16],
//                      p.weight_global_scale F32 [1]
//   mxfp4-pack-quantized  the same with p.weight_scale U8 [out, in / 32] (E8M0)
//
// A signed code or zero point q is stored as q + 2^(bits-1), which is our
// unsigned code. Static activations add p.input_scale [1] and
// p.input_zero_point. What the format cannot say is written beside it as
// docs/artifacts.md lays down; a Linear that other readers would get wrong
// without it has the format "llmpress", which they refuse.
#pragma once

#include <string>

#include "formats/linears/encoded_linear.h"
#include "formats/linears/linear_form.h"

namespace llmpress {

// Throws Error(kUnsupported) naming the Linear for a zero point beyond I8.
EncodedLinear encode_compressed_tensors(const std::string& name,
                                        const LinearWeights& linear);

// One packed type each, declared for all; the scheme in `e` is filled in.
void encode_weight(const std::string& p, const DenseWeight& w,
                   EncodedLinear& e);
void encode_weight(const std::string& p, const GroupedIntWeight& w,
                   EncodedLinear& e);
void encode_weight(const std::string& p, const Int8Weight& w, EncodedLinear& e);
void encode_weight(const std::string& p, const Fp8Weight& w, EncodedLinear& e);
void encode_weight(const std::string& p, const MicroFp4Weight& w,
                   EncodedLinear& e);
void encode_weight(const std::string& p, const Table4Weight& w,
                   EncodedLinear& e);
void encode_weight(const std::string& p, const SparseWeight& w,
                   EncodedLinear& e);
void encode_weight(const std::string& p, const GgmlWeight& w, EncodedLinear& e);

bool is_pack_quantized(const StoredLinear& linear);
PackedWeight read_pack_quantized(const StoredLinear& linear);
// Also "naive-quantized": fewer bits than 8 in whole octets.
bool is_int_quantized(const StoredLinear& linear);
PackedWeight read_int_quantized(const StoredLinear& linear);
// Also Hugging Face's "fp8", whose p.weight_scale_inv multiplies all the same.
bool is_float_quantized(const StoredLinear& linear);
PackedWeight read_float_quantized(const StoredLinear& linear);
bool is_micro_fp4(const StoredLinear& linear);
PackedWeight read_micro_fp4(const StoredLinear& linear);

// How the configuration and p.input_scale say that inputs are rounded.
ActivationQuant read_activations(const StoredLinear& linear);

}  // namespace llmpress
