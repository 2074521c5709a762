#include "formats/linears/mlx.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/mlx_floats.h"
#include "formats/linears/transposed_ints.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

constexpr std::string_view kFormat = "mlx";
constexpr std::array<std::size_t, 3> kGroups{128, 64, 32};
constexpr std::array kBits{2, 3, 4, 5, 6, 8};

// --- reading -----------------------------------------------------------------

// The zero point of w = s q + b. Where s is 0, or so small that codes do not
// move b, the group is b for all codes: codes 0, scale b, zero point -1.
float zero_of(float& s, float b, bool& constant) {
  if (b == 0) return 0;
  const float zero = -b / s;
  constant = !std::isfinite(zero);
  if (!constant) return zero;
  s = b;
  return -1;
}

void clear_codes(Matrix<std::uint8_t>& codes, std::size_t o, std::size_t g,
                 std::size_t group_size) {
  for (std::size_t i = g * group_size; i < (g + 1) * group_size; ++i) {
    codes(o, i) = 0;
  }
}

void set_zeros(GroupedIntWeight& w, const std::vector<float>& biases) {
  std::vector<std::pair<std::size_t, std::size_t>> constants;
  std::vector<float> zeros(w.scales.size());
  for (std::size_t k = 0; k < zeros.size(); ++k) {
    bool constant = false;
    zeros[k] = zero_of(w.scales[k], biases[k], constant);
    if (constant) constants.emplace_back(k / w.groups(), k % w.groups());
  }
  if (!constants.empty()) {
    Matrix<std::uint8_t> codes = unpack_rows(w);
    for (const auto& [o, g] : constants) clear_codes(codes, o, g, w.group_size);
    w.codes = pack_rows(std::as_const(codes).view(), w.bits);
  }
  const auto most = static_cast<float>((1 << w.bits) - 1);
  const bool whole = std::ranges::all_of(zeros, [&](float z) {
    return z >= 0 && z <= most && z == std::nearbyint(z);
  });
  if (!whole) {
    w.float_zeros = std::move(zeros);
    return;
  }
  const auto middle = static_cast<float>(1 << (w.bits - 1));
  w.symmetric =
      std::ranges::all_of(zeros, [&](float z) { return z == middle; });
  if (w.symmetric) return;
  for (const float z : zeros) w.zeros.push_back(static_cast<std::uint8_t>(z));
}

// F32 in the file where the biases need it, or the scales themselves.
DType narrowest(DType stored, const std::vector<float>& scales) {
  if (stored != DType::kF32) return stored;
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    std::vector<float> rounded = scales;
    round_through(dtype, rounded);
    if (rounded == scales) return dtype;
  }
  return stored;
}

// [out, in] by the width of a row in words.
std::pair<std::size_t, std::size_t> shape_of(const StoredLinear& l,
                                             std::size_t bits) {
  const TensorInfo& info = l.require(".weight");
  require_dtype(info, DType::kU32);
  const auto [out, words] = require_matrix(info);
  if (words * 32 % bits != 0) {
    fail(ErrorCode::kCorruptFile,
         "{}: {} words a row are no whole number of codes of {} bits",
         subject_of(info), words, bits);
  }
  return {out, words * 32 / bits};
}

}  // namespace

bool is_mlx(const StoredLinear& l) {
  const TensorInfo* const weight = l.find(".weight");
  return weight != nullptr && weight->dtype == DType::kU32 &&
         l.find(".scales") != nullptr && l.scheme.format == kFormat;
}

PackedWeight read_mlx(const StoredLinear& l) {
  const QuantArgs& args = *l.scheme.weights;
  if (args.floating) return read_mlx_floats(l);
  const auto bits = static_cast<std::size_t>(args.bits);
  const auto [out, in] = shape_of(l, bits);
  if (args.group_size == 0 || in % args.group_size != 0) {
    fail(ErrorCode::kCorruptFile,
         "{}: {} inputs are no whole number of groups of {}", l.where(), in,
         args.group_size);
  }
  GroupedIntWeight w{
      .out = out, .in = in, .bits = args.bits, .group_size = args.group_size};
  w.codes =
      elements_of<std::uint32_t>(l.reader, l.require(".weight"), DType::kU32);
  const TensorInfo& scales = l.require(".scales");
  const TensorInfo& biases = l.require(".biases");
  require_shape(scales, Shape{out, w.groups()});
  require_shape(biases, Shape{out, w.groups()});
  w.scales = floats_of(l.reader, scales);
  w.scale_dtype = narrowest(scale_dtype_of(scales), w.scales);
  const std::vector<float> offsets = floats_of(l.reader, biases);
  for (std::size_t k = 0; k < offsets.size(); ++k) {
    if (std::isfinite(offsets[k]) && std::isfinite(w.scales[k])) continue;
    fail(ErrorCode::kInvalidInput,
         "{}: scale {:g} and bias {:g} of row {}, group {} are not finite",
         l.where(), w.scales[k], offsets[k], k / w.groups(), k % w.groups());
  }
  set_zeros(w, offsets);
  return w;
}

// --- writing -----------------------------------------------------------------

namespace {

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  fail(ErrorCode::kUnsupported,
       "Linear '{}': {} cannot be stored as MLX does; write compressed-tensors",
       name, what);
}

float zero_at(const GroupedIntWeight& w, std::size_t k) {
  if (!w.float_zeros.empty()) return w.float_zeros[k];
  return w.symmetric ? static_cast<float>(1 << (w.bits - 1))
                     : static_cast<float>(w.zeros[k]);
}

// -scale zero in `dtype`, unless a zero point would not come back.
std::optional<std::vector<float>> biases_in(DType dtype,
                                            const GroupedIntWeight& w) {
  std::vector<float> biases(w.scales.size());
  for (std::size_t k = 0; k < biases.size(); ++k) {
    biases[k] = -w.scales[k] * zero_at(w, k);
  }
  round_through(dtype, biases);
  for (std::size_t k = 0; k < biases.size(); ++k) {
    const bool same =
        w.scales[k] == 0 || -biases[k] / w.scales[k] == zero_at(w, k);
    if (!same || !std::isfinite(biases[k])) return std::nullopt;
  }
  return biases;
}

// Rows of `groups` numbers, each of them `times` times.
std::vector<float> repeated(const std::vector<float>& values,
                            std::size_t times) {
  std::vector<float> all;
  all.reserve(values.size() * times);
  for (const float v : values) all.insert(all.end(), times, v);
  return all;
}

// The largest group of MLX that divides the weight's.
std::size_t group_of(const std::string& name, const GroupedIntWeight& w) {
  for (const std::size_t size : kGroups) {
    if (w.group_size % size == 0 && w.in % w.group_size == 0) return size;
  }
  refuse(name, formatted("{} inputs in groups of {}, no multiple of 32,", w.in,
                         w.group_size));
}

EncodedLinear encode_groups(const std::string& p, const GroupedIntWeight& w) {
  if (std::ranges::find(kBits, w.bits) == kBits.end()) {
    refuse(p, formatted("{} bits", w.bits));
  }
  if (!w.g_idx.empty()) refuse(p, "an order of inputs (act-order)");
  const std::size_t group = group_of(p, w), times = w.group_size / group;
  DType dtype = w.scale_dtype;
  auto biases = biases_in(dtype, w);
  if (!biases) biases = biases_in(dtype = DType::kF32, w);
  if (!biases) {
    refuse(p,
           "scale times zero point, which is no number of f32 (scale_dtype f16 "
           "or symmetric: true has one),");
  }
  EncodedLinear e;
  e.scheme.format = kFormat;
  e.scheme.weights = QuantArgs{.bits = w.bits,
                               .symmetric = w.symmetric,
                               .strategy = "group",
                               .group_size = group};
  const Shape shape{w.out, w.in / group};
  e.tensors.push_back(tensor_of(p + ".weight", DType::kU32,
                                {w.out, w.words_per_row()}, w.codes));
  e.tensors.push_back(
      float_tensor(p + ".scales", dtype, shape, repeated(w.scales, times)));
  e.tensors.push_back(
      float_tensor(p + ".biases", dtype, shape, repeated(*biases, times)));
  return e;
}

nlohmann::ordered_json words_of(const LinearScheme& scheme) {
  return {{"group_size", scheme.weights->group_size},
          {"bits", scheme.weights->bits},
          {"mode", scheme.weights->floating
                       ? mlx_float_mode_of(*scheme.weights).name
                       : "affine"}};
}

}  // namespace

EncodedLinear encode_mlx(const std::string& name, const LinearWeights& linear) {
  if (const std::string what = beyond_weights(linear); !what.empty()) {
    refuse(name, what);
  }
  EncodedLinear e;
  if (const auto* const dense = std::get_if<DenseWeight>(&linear.weight)) {
    e.tensors.push_back(dense_tensor(name, *dense));
  } else if (const auto groups = as_groups(linear.weight)) {
    e = encode_groups(name, *groups);
  } else if (is_mlx_float(linear.weight)) {
    e = encode_mlx_floats(name, linear.weight);
  } else {
    refuse(name, describe(linear.weight));
  }
  add_bias(name, linear, DType::kF16, e);
  return e;
}

std::string mlx_config(const std::map<std::string, DescribedLinear>& linears) {
  const LinearScheme* const common = commonest_scheme(linears);
  if (common == nullptr) return {};
  nlohmann::ordered_json j = words_of(*common);
  for (const auto& [name, linear] : linears) {
    if (!linear.scheme.weights) continue;
    const auto own = words_of(linear.scheme);
    if (own != words_of(*common)) j[name] = own;
  }
  return j.dump(2);
}

}  // namespace llmpress
