// Linears as torchao stores them in safetensors (torchao.prototype.safetensors;
// transformers' TorchAoConfig). The weight of module p is an object, whose
// tensors are p._weight_<part> and whose class and settings are JSON in the
// file's __metadata__ under "p.weight":
//   {"_type": "Int8Tensor", "_data": {"block_size": [1, 256],
//    "act_quant_kwargs": null, ...}, "_tensor_data_names": ["qdata", "scale"]}
//
//   Int8Tensor     qdata I8 [out, in]; scale [out, in] / block_size
//                  (zero_point I8 likewise); W = s (q - z)
//   IntxUnpackedToInt8Tensor  the same with fewer bits in whole octets, zero
//                  points of I8 or real
//   Float8Tensor   qdata F8_E4M3 or F8_E5M2 [out, in]; scale [out, in] /
//                  block_size; W = s q
//   Int4Tensor     qdata I8 [out, in / 2], even input in the low nibble; scale
//                  and zero_point [in / group, out]; W = s q + z, q in -8..7
//
// How inputs are rounded is in act_quant_kwargs (activation_quantization of
// Intx...). Other classes, which are packed for one kernel, are refused by name.
#pragma once

#include "formats/linears/linear_form.h"

namespace llmpress {

bool is_torchao(const StoredLinear& linear);
PackedWeight read_torchao(const StoredLinear& linear);
ActivationQuant torchao_activations(const StoredLinear& linear);

}  // namespace llmpress
