// Linears as bitsandbytes stores them.
//
//   int8      p.weight I8 [out, in], p.SCB F32 [out] (largest |w| of each row:
//             W = q SCB / 127), p.weight_format U8 scalar 0 (row-major)
//   nf4, fp4  p.weight U8 [ceil(out in / 2), 1], the first code in the high
//             nibble; p.weight.absmax F32 or, double quantized, U8 [blocks];
//             p.weight.quant_map F32 [16]; p.weight.nested_absmax F32
//             [ceil(blocks / 256)]; p.weight.nested_quant_map F32 [256];
//             p.weight.quant_state.bitsandbytes__nf4 U8: a JSON object
//
// Our int8 scale is SCB / 127 rounded to a float, so that SCB = 127 s is
// rounded in turn; the pair is read back to the same scale where that rounding
// allows and refused on writing where not.
#pragma once

#include <string>
#include <vector>

#include "formats/linears/encoded_linear.h"
#include "formats/linears/linear_form.h"

namespace llmpress {

// The tensors of a 4-bit weight. `compute` is the type that readers decode to.
std::vector<NamedTensor> table4_tensors(const std::string& name,
                                        const Table4Weight& weight,
                                        DType compute);

// NF4, FP4, and int8 by rows without zero points; dense weights stay as they
// are. Throws Error(kUnsupported) naming the Linear and a format that can hold
// it.
EncodedLinear encode_bitsandbytes(const std::string& name,
                                  const LinearWeights& linear, DType compute);

bool is_table4(const StoredLinear& linear);
PackedWeight read_table4(const StoredLinear& linear);
bool is_bitsandbytes_int8(const StoredLinear& linear);
PackedWeight read_bitsandbytes_int8(const StoredLinear& linear);
ActivationQuant bitsandbytes_int8_activations(const StoredLinear& linear);

// The object "quantization_config" of Hugging Face for such a model.
struct BitsandbytesFacts {
  bool int8 = false;  // otherwise 4-bit
  bool fp4 = false, nested = false;
  float threshold = 0;                 // llm_int8_threshold
  std::string compute = "float32";     // torch name
  std::vector<std::string> skipped{};  // Linears that stay dense
};
std::string bitsandbytes_config(const BitsandbytesFacts& facts);

}  // namespace llmpress
