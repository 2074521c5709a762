#include "formats/linears/mlx_floats.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/float_bits.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/exponent_scales.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

constexpr std::array kModes{MlxFloatMode{"mxfp4", 4, 32},
                            MlxFloatMode{"mxfp8", 8, 32},
                            MlxFloatMode{"nvfp4", 4, 16}};
constexpr float kGlobalUnit = kE4M3Max * 6;  // of p.global_scale

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  fail(ErrorCode::kUnsupported,
       "Linear '{}': {} cannot be stored as MLX does; write compressed-tensors",
       name, what);
}

// --- reading -----------------------------------------------------------------

std::vector<std::uint8_t> octets_of(const StoredLinear& l,
                                    const TensorInfo& info) {
  require_dtype(info, DType::kU32);
  const TensorBytes stored = l.reader.read(info);
  std::vector<std::uint8_t> octets(stored.bytes.size());
  if (!octets.empty()) {
    std::memcpy(octets.data(), stored.bytes.data(), octets.size());
  }
  return octets;
}

PackedWeight read_eight(const StoredLinear& l, std::size_t out, std::size_t in,
                        const TensorInfo& scales) {
  Fp8Weight w{.out = out,
              .in = in,
              .block_rows = 1,
              .block_cols = kModes[1].group,
              .scale_dtype = DType::kBF16};  // which holds any E8M0
  w.codes = octets_of(l, l.require(".weight"));
  w.scales = read_exponents(l.reader, scales);
  return w;
}

float read_global_scale(const StoredLinear& l) {
  const TensorInfo* const info = l.find(".global_scale");
  if (info == nullptr) return 1;
  const std::vector<float> values = floats_of(l.reader, *info);
  if (values.size() != 1 || !(values[0] > 0)) {
    fail(ErrorCode::kCorruptFile, "{}: is not one positive number",
         subject_of(*info));
  }
  return kGlobalUnit / values[0];
}

}  // namespace

const MlxFloatMode* find_mlx_float_mode(std::string_view name) {
  const auto at = std::ranges::find(kModes, name, &MlxFloatMode::name);
  return at == kModes.end() ? nullptr : at;
}

const MlxFloatMode& mlx_float_mode_of(const QuantArgs& args) {
  const auto at = std::ranges::find_if(kModes, [&](const MlxFloatMode& mode) {
    return mode.bits == args.bits && mode.group == args.group_size;
  });
  if (at == kModes.end()) throw std::logic_error("no mode of MLX");
  return *at;
}

PackedWeight read_mlx_floats(const StoredLinear& l) {
  const MlxFloatMode& mode = mlx_float_mode_of(*l.scheme.weights);
  const TensorInfo& info = l.require(".weight");
  const auto [out, words] = require_matrix(info);
  const std::size_t in = words * (32 / static_cast<std::size_t>(mode.bits));
  const TensorInfo& scales = l.require(".scales");
  if (in % mode.group != 0) {
    fail(ErrorCode::kCorruptFile,
         "{}: {} inputs are no whole number of groups of {}", subject_of(info),
         in, mode.group);
  }
  require_shape(scales, Shape{out, in / mode.group});
  if (mode.bits == 8) return read_eight(l, out, in, scales);
  MicroFp4Weight w{.out = out, .in = in};
  if (mode.group == 16) {
    w.kind = MicroFp4Kind::kNvfp4;
    w.global_scale = read_global_scale(l);
  }
  w.codes = octets_of(l, info);
  w.scales = elements_of<std::uint8_t>(l.reader, scales, DType::kU8);
  return w;
}

// --- writing -----------------------------------------------------------------

namespace {

EncodedLinear encoded(const std::string& p, std::size_t out, std::size_t in,
                      const MlxFloatMode& mode,
                      const std::vector<std::uint8_t>& codes,
                      const std::vector<std::uint8_t>& scales) {
  EncodedLinear e;
  e.scheme.format = "mlx";
  e.scheme.weights = QuantArgs{.bits = mode.bits,
                               .floating = true,
                               .strategy = "group",
                               .group_size = mode.group};
  const std::size_t words = in * static_cast<std::size_t>(mode.bits) / 32;
  e.tensors.push_back(
      tensor_of(p + ".weight", DType::kU32, {out, words}, codes));
  e.tensors.push_back(
      tensor_of(p + ".scales", DType::kU8, {out, in / mode.group}, scales));
  return e;
}

// Each scale of a block for every row and group of 32 that it covers.
EncodedLinear encode(const std::string& p, const Fp8Weight& w) {
  const MlxFloatMode& mode = kModes[1];
  const auto exponents = exponents_of(w.scales);
  const bool whole = w.in % mode.group == 0 &&
                     (w.block_cols % mode.group == 0 || w.block_cols >= w.in);
  if (w.format != DType::kF8E4M3 || !exponents || !whole) {
    refuse(p, describe(PackedWeight(w)) +
                  " (mxfp8 is E4M3 with a power of two for every 32 inputs)");
  }
  const std::size_t columns = ceil_div(w.in, w.block_cols);
  std::vector<std::uint8_t> scales;
  for (std::size_t o = 0; o < w.out; ++o) {
    for (std::size_t i = 0; i < w.in; i += mode.group) {
      scales.push_back(
          (*exponents)[o / w.block_rows * columns + i / w.block_cols]);
    }
  }
  return encoded(p, w.out, w.in, mode, w.codes, scales);
}

// The E4M3 scales divided by the global one; empty where a quotient is none.
std::vector<std::uint8_t> without_global(const MicroFp4Weight& w) {
  if (w.global_scale == 1) return w.scales;
  std::vector<std::uint8_t> scales;
  for (const std::uint8_t s : w.scales) {
    const float value = float_bits::e4m3_to_float(s) / w.global_scale;
    const std::uint8_t code = float_bits::e4m3_from_float(value);
    if (float_bits::e4m3_to_float(code) != value) return {};
    scales.push_back(code);
  }
  return scales;
}

EncodedLinear encode(const std::string& p, const MicroFp4Weight& w) {
  const bool nv = w.kind == MicroFp4Kind::kNvfp4;
  if (w.in % w.group() != 0) {
    refuse(p,
           formatted("{} inputs, which {} does not divide,", w.in, w.group()));
  }
  const std::vector<std::uint8_t> scales = nv ? without_global(w) : w.scales;
  if (scales.empty() && !w.scales.empty()) {
    refuse(p, formatted(
                  "nvfp4 with the global scale {:g}, which MLX has for stacks "
                  "of experts only and which does not go into the scales of "
                  "groups,",
                  w.global_scale));
  }
  return encoded(p, w.out, w.in, kModes[nv ? 2 : 0], w.codes, scales);
}

}  // namespace

bool is_mlx_float(const PackedWeight& weight) {
  return std::holds_alternative<Fp8Weight>(weight) ||
         std::holds_alternative<MicroFp4Weight>(weight);
}

EncodedLinear encode_mlx_floats(const std::string& name,
                                const PackedWeight& weight) {
  if (const auto* const fp8 = std::get_if<Fp8Weight>(&weight)) {
    return encode(name, *fp8);
  }
  return encode(name, std::get<MicroFp4Weight>(weight));
}

}  // namespace llmpress
