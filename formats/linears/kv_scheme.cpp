#include "formats/linears/kv_scheme.h"

#include <algorithm>
#include <cmath>

#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

const TensorInfo& find_scale(const TensorReader& reader,
                             const std::string& block,
                             const std::string& side) {
  for (const std::string& suffix :
       {"." + side + "_scale", "." + side + "_proj.output_scale"}) {
    for (const TensorInfo& info : reader.tensors()) {
      if (info.name.starts_with(block + ".") && info.name.ends_with(suffix)) {
        return info;
      }
    }
  }
  fail(
      ErrorCode::kInvalidInput,
      "'{}' has no {}_scale, but quantization_config.kv_cache_scheme is static",
      block, side);
}

std::vector<float> read_scales(const TensorReader& reader,
                               const TensorInfo& info) {
  std::vector<float> scales = floats_of(reader, info);
  const bool good = std::ranges::all_of(
      scales, [](float s) { return std::isfinite(s) && s > 0; });
  if (scales.empty() || !good) {
    fail(ErrorCode::kCorruptFile, "{}: holds no positive finite scales",
         subject_of(info));
  }
  return scales;
}

}  // namespace

std::string KvScheme::describe() const {
  const bool fp8 = rounding.kind == ActivationQuant::Kind::kFp8;
  return formatted(
      "{}{} with {}", fp8 ? "fp" : "int", rounding.bits,
      key_scales.empty() ? "scales found at run time" : "static scales");
}

void check_kv_scheme(const QuantArgs& args, const std::string& where) {
  const auto refuse = [&](const std::string& what) {
    fail(ErrorCode::kUnsupported, "{}: quantization_config.kv_cache_scheme: {}",
         where, what);
  };
  const bool known =
      args.floating ? args.bits == 8 : args.bits == 8 || args.bits == 4;
  if (!known) {
    refuse(
        formatted("{}-bit {} are not supported; known are 8-bit floats, 8- and "
                  "4-bit integers",
                  args.bits, args.floating ? "floats" : "integers"));
  }
  if (!args.symmetric) refuse("symmetric false is not supported");
  const bool strategy = args.strategy == "tensor" ||
                        args.strategy == (args.dynamic ? "token" : "attn_head");
  if (!strategy) {
    refuse("strategy '" + args.strategy +
           "' is not supported when dynamic is " +
           (args.dynamic ? "true; known are tensor, token"
                         : "false; known are tensor, attn_head"));
  }
}

KvScheme read_kv_scheme(const TensorReader& reader, const std::string& block,
                        const QuantArgs& args) {
  KvScheme scheme;
  scheme.rounding.kind =
      args.floating ? ActivationQuant::Kind::kFp8 : ActivationQuant::Kind::kInt;
  scheme.rounding.bits = args.bits;
  if (args.dynamic) {
    scheme.rounding.range = args.strategy == "tensor"
                                ? ActivationQuant::Range::kTensor
                                : ActivationQuant::Range::kToken;
    return scheme;
  }
  scheme.rounding.range = ActivationQuant::Range::kStatic;
  scheme.key_scales = read_scales(reader, find_scale(reader, block, "k"));
  scheme.value_scales = read_scales(reader, find_scale(reader, block, "v"));
  return scheme;
}

}  // namespace llmpress
