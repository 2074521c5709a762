// What all packed types share; each has its own file.
#include <algorithm>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/linears/bitsandbytes.h"
#include "formats/linears/compressed_tensors_parts.h"
#include "formats/linears/ggml_blocks.h"
#include "formats/linears/loader_rules.h"
#include "formats/linears/sparse_tensors.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

std::string strategy_of(ActivationQuant::Range range) {
  switch (range) {
    case ActivationQuant::Range::kToken:
      return "token";
    case ActivationQuant::Range::kGroup:
      return "group";
    case ActivationQuant::Range::kTensor:
    case ActivationQuant::Range::kStatic:
      break;
  }
  return "tensor";
}

// Of scales that are found at run time.
ActivationQuant::Range dynamic_range(const StoredLinear& l,
                                     const QuantArgs& args) {
  for (const auto range :
       {ActivationQuant::Range::kToken, ActivationQuant::Range::kGroup,
        ActivationQuant::Range::kTensor}) {
    if (args.strategy == strategy_of(range)) return range;
  }
  refuse(l, ErrorCode::kUnsupported,
         "input_activations with the strategy '" + args.strategy +
             "'; known are token, group, tensor");
}

// transformers' fp8 has another name for it.
const TensorInfo& require_input_scale(const StoredLinear& l) {
  const TensorInfo* const scale = l.find(".activation_scale");
  return scale != nullptr ? *scale : l.require(".input_scale");
}

void encode_activations(const std::string& p, const ActivationQuant& input,
                        EncodedLinear& e) {
  if (input.kind == ActivationQuant::Kind::kNone) return;
  const bool is_static = input.range == ActivationQuant::Range::kStatic;
  const bool floating = input.kind == ActivationQuant::Kind::kFp8;
  e.scheme.input = QuantArgs{
      .bits = floating ? 8 : input.bits,
      .floating = floating,
      .symmetric = input.symmetric,
      .dynamic = !is_static,
      .strategy = strategy_of(input.range),
      .group_size =
          input.range == ActivationQuant::Range::kGroup ? input.group_size : 0};
  if (!is_static) return;
  e.tensors.push_back(tensor_of<float>(p + ".input_scale", DType::kF32, {1},
                                       {input.static_scale}));
  if (!input.symmetric) {
    e.tensors.push_back(
        zero_tensor(p + ".input_zero_point", {1}, {input.static_zero}, p));
  }
}

DType preferred_bias_dtype(const PackedWeight& weight) {
  return std::visit(
      [](const auto& w) {
        if constexpr (requires { w.scale_dtype; }) {
          return w.scale_dtype;
        } else if constexpr (requires { w.dtype; }) {
          return w.dtype;
        } else {
          return DType::kF16;
        }
      },
      weight);
}

}  // namespace

void refuse(const StoredLinear& l, ErrorCode code, const std::string& what) {
  fail(code, "{}: {}", l.where(), what);
}

const QuantArgs& require_args(const StoredLinear& l, bool floating) {
  if (!l.scheme.weights || l.scheme.weights->floating != floating) {
    refuse(l, ErrorCode::kInvalidInput,
           formatted("its weight is quantized, but quantization_config has no "
                     "{} weights for it",
                     floating ? "float" : "int"));
  }
  return *l.scheme.weights;
}

void require_int_bits(const StoredLinear& l, int bits) {
  if (bits < 2 || bits > 8) {
    refuse(l, ErrorCode::kUnsupported,
           formatted("{}-bit integers, wanted 2..8 bits", bits));
  }
}

std::size_t group_size_of(const QuantArgs& args, std::size_t in) {
  const bool grouped =
      args.strategy == "group" || args.strategy == "tensor_group";
  return grouped && args.group_size != 0 ? std::min(args.group_size, in) : in;
}

std::vector<std::uint8_t> unsigned_codes(const StoredLinear& l,
                                         const TensorInfo& info, int bits) {
  const std::int64_t offset = std::int64_t{1} << (bits - 1);
  std::vector<std::uint8_t> codes;
  const auto stored = integers_of(l.reader, info);
  codes.reserve(stored.size());
  for (const std::int64_t v : stored) {
    if (v < -offset || v >= offset) {
      refuse(
          l, ErrorCode::kCorruptFile,
          formatted("{} holds {}, beyond {} bits", subject_of(info), v, bits));
    }
    codes.push_back(static_cast<std::uint8_t>(v + offset));
  }
  return codes;
}

NamedTensor shape_tensor(const std::string& name, std::size_t out,
                         std::size_t in) {
  return tensor_of<std::int64_t>(
      name, DType::kI64, {2},
      {static_cast<std::int64_t>(out), static_cast<std::int64_t>(in)});
}

NamedTensor zero_tensor(const std::string& name, const Shape& shape,
                        const std::vector<std::int32_t>& zeros,
                        const std::string& linear) {
  std::vector<std::int8_t> narrow;
  for (const std::int32_t z : zeros) {
    if (z < INT8_MIN || z > INT8_MAX) {
      fail(ErrorCode::kUnsupported,
           "Linear '{}': zero point {} does not fit the 8 bits of "
           "compressed-tensors",
           linear, z);
    }
    narrow.push_back(static_cast<std::int8_t>(z));
  }
  return tensor_of(name, DType::kI8, shape, narrow);
}

ActivationQuant read_activations(const StoredLinear& l) {
  ActivationQuant input{.outlier_threshold = l.extension.outlier_threshold};
  if (!l.scheme.input) return input;
  const QuantArgs& args = *l.scheme.input;
  const bool known =
      args.floating ? args.bits == 8 : args.bits == 8 || args.bits == 4;
  if (!known) {
    refuse(l, ErrorCode::kUnsupported,
           formatted("activations of {}-bit {}", args.bits,
                     args.floating ? "floats" : "integers"));
  }
  input.kind =
      args.floating ? ActivationQuant::Kind::kFp8 : ActivationQuant::Kind::kInt;
  input.bits = args.bits;
  input.symmetric = args.symmetric;
  if (args.dynamic) {
    input.range = dynamic_range(l, args);
    if (input.range == ActivationQuant::Range::kGroup) {
      if (args.group_size == 0) {
        refuse(l, ErrorCode::kInvalidInput,
               "input_activations have groups of no size");
      }
      input.group_size = args.group_size;
    }
    return input;
  }
  input.range = ActivationQuant::Range::kStatic;
  const TensorInfo& scale = require_input_scale(l);
  const auto scales = floats_of(l.reader, scale);
  if (scales.size() != 1 || !std::isfinite(scales[0]) || scales[0] <= 0) {
    refuse(l, ErrorCode::kCorruptFile,
           subject_of(scale) + " is not one positive number");
  }
  input.static_scale = scales[0];
  if (!args.symmetric) {
    const TensorInfo& zero = l.require(".input_zero_point");
    const auto zeros = integers_of(l.reader, zero);
    if (zeros.size() != 1 || zeros[0] < -65536 || zeros[0] > 65536) {
      refuse(l, ErrorCode::kCorruptFile,
             subject_of(zero) + " is not one zero point");
    }
    input.static_zero = static_cast<std::int32_t>(zeros[0]);
  }
  return input;
}

void encode_weight(const std::string& p, const DenseWeight& w,
                   EncodedLinear& e) {
  e.tensors.push_back({.name = p + ".weight",
                       .dtype = w.dtype,
                       .shape = {w.out, w.in},
                       .bytes = w.data});
}

void encode_weight(const std::string& p, const Table4Weight& w,
                   EncodedLinear& e) {
  e.scheme.weights = QuantArgs{.bits = 4,
                               .floating = true,
                               .strategy = "group",
                               .group_size = w.block_size};
  for (NamedTensor& t : table4_tensors(p, w, DType::kF32)) {
    e.tensors.push_back(std::move(t));
  }
}

void encode_weight(const std::string& p, const SparseWeight& w,
                   EncodedLinear& e) {
  encode_sparse(p, w, e);
}

void encode_weight(const std::string& p, const GgmlWeight& w,
                   EncodedLinear& e) {
  encode_ggml_blocks(p, w, e);
}

EncodedLinear encode_compressed_tensors(const std::string& name,
                                        const LinearWeights& linear) {
  EncodedLinear encoded;
  std::visit([&](const auto& w) { encode_weight(name, w, encoded); },
             linear.weight);
  add_bias(name, linear, preferred_bias_dtype(linear.weight), encoded);
  encode_activations(name, linear.input, encoded);
  encoded.extension.outlier_threshold = linear.input.outlier_threshold;
  encoded.extension.input_hadamard = linear.input_hadamard;
  const LoaderRule* const rule = broken_rule(name, linear);
  if (rule != nullptr && rule->readers == Readers::kOnlyUs) {
    encoded.scheme.format = kOwnFormat;
  }
  return encoded;
}

}  // namespace llmpress
