#include "formats/linears/awq.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/transposed_ints.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

constexpr std::string_view kFormat = "awq";
constexpr int kBits = 4;
constexpr std::size_t kPerWord = 8;
// Which of eight outputs nibble k of a word holds.
constexpr std::array<std::size_t, kPerWord> kOrder{0, 2, 4, 6, 1, 3, 5, 7};

// Codes [rows, out] from words [rows, out / 8].
std::vector<std::uint8_t> from_words(std::span<const std::uint32_t> words) {
  std::vector<std::uint8_t> codes(words.size() * kPerWord);
  for (std::size_t w = 0; w < words.size(); ++w) {
    for (std::size_t k = 0; k < kPerWord; ++k) {
      codes[w * kPerWord + kOrder[k]] =
          static_cast<std::uint8_t>((words[w] >> (kBits * k)) & 15U);
    }
  }
  return codes;
}

std::vector<std::uint32_t> to_words(std::span<const std::uint8_t> codes) {
  std::vector<std::uint32_t> words(codes.size() / kPerWord);
  for (std::size_t w = 0; w < words.size(); ++w) {
    for (std::size_t k = 0; k < kPerWord; ++k) {
      words[w] |= std::uint32_t{codes[w * kPerWord + kOrder[k]]} << (kBits * k);
    }
  }
  return words;
}

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  fail(ErrorCode::kUnsupported,
       "Linear '{}': {} cannot be stored as AWQ; write compressed-tensors or "
       "gptq",
       name, what);
}

void check_held(const std::string& name, const GroupedIntWeight& w) {
  if (w.bits != kBits) refuse(name, formatted("{} bits", w.bits));
  if (!w.float_zeros.empty()) refuse(name, "a real zero point (HQQ)");
  if (!w.g_idx.empty()) refuse(name, "an order of inputs (act-order)");
  if (w.out % kPerWord != 0) {
    refuse(name, formatted("{} outputs, which 8 does not divide,", w.out));
  }
  if (w.in % w.group_size != 0) {
    refuse(name, formatted("a short last group ({} inputs in groups of {})",
                           w.in, w.group_size));
  }
  require_f16_scales(name, w, "AWQ");
}

EncodedLinear encode_groups(const std::string& p, const GroupedIntWeight& w) {
  check_held(p, w);
  EncodedLinear e;
  // Loaders know one size of groups for a whole model.
  e.scheme.format = formatted("awq g{}", w.group_size);
  e.scheme.weights = QuantArgs{.bits = kBits,
                               .symmetric = false,
                               .strategy = "group",
                               .group_size = w.group_size};
  const std::size_t groups = w.groups();
  const Matrix<std::uint8_t> codes = unpack_rows(w);
  e.tensors.push_back(
      tensor_of(p + ".qweight", DType::kI32, {w.in, w.out / kPerWord},
                to_words(transposed(std::span<const std::uint8_t>(codes.data()),
                                    w.out, w.in))));
  const auto zeros = w.symmetric
                         ? std::vector<std::uint8_t>(groups * w.out, 8)
                         : transposed(std::span(w.zeros), w.out, groups);
  e.tensors.push_back(tensor_of(p + ".qzeros", DType::kI32,
                                {groups, w.out / kPerWord}, to_words(zeros)));
  e.tensors.push_back(
      float_tensor(p + ".scales", DType::kF16, {groups, w.out},
                   transposed(std::span(w.scales), w.out, groups)));
  return e;
}

}  // namespace

bool is_awq(const StoredLinear& l) {
  return l.find(".qweight") != nullptr && l.scheme.format == kFormat;
}

PackedWeight read_awq(const StoredLinear& l) {
  const QuantArgs& args = *l.scheme.weights;
  if (args.bits != kBits) {
    fail(ErrorCode::kUnsupported, "{}: AWQ of {} bits", l.where(), args.bits);
  }
  const TensorInfo& info = l.require(".qweight");
  const auto [in, columns] = require_matrix(info);
  GroupedIntWeight w{.out = columns * kPerWord, .in = in, .bits = kBits};
  w.group_size = args.group_size == 0 ? in : std::min(args.group_size, in);
  const auto codes = transposed(
      std::span<const std::uint8_t>(
          from_words(elements_of<std::uint32_t>(l.reader, info, DType::kI32))),
      in, w.out);
  w.codes = pack_rows({codes, w.out, w.in}, kBits);
  const TensorInfo& scales = l.require(".scales");
  require_shape(scales, Shape{w.groups(), w.out});
  w.scale_dtype = scale_dtype_of(scales);
  w.scales = transposed(std::span<const float>(floats_of(l.reader, scales)),
                        w.groups(), w.out);
  const TensorInfo& zeros = l.require(".qzeros");
  require_shape(zeros, Shape{w.groups(), columns});
  w.zeros = transposed(
      std::span<const std::uint8_t>(
          from_words(elements_of<std::uint32_t>(l.reader, zeros, DType::kI32))),
      w.groups(), w.out);
  w.symmetric =
      std::ranges::all_of(w.zeros, [](std::uint8_t z) { return z == 8; });
  if (w.symmetric) w.zeros.clear();
  return w;
}

EncodedLinear encode_awq(const std::string& name, const LinearWeights& linear) {
  if (const std::string what = beyond_weights(linear); !what.empty()) {
    refuse(name, what);
  }
  EncodedLinear e;
  if (const auto* const dense = std::get_if<DenseWeight>(&linear.weight)) {
    e.tensors.push_back(dense_tensor(name, *dense));
  } else if (const auto* const groups =
                 std::get_if<GroupedIntWeight>(&linear.weight)) {
    e = encode_groups(name, *groups);
  } else {
    refuse(name, describe(linear.weight));
  }
  add_bias(name, linear, DType::kF16, e);
  return e;
}

std::string awq_config(const std::map<std::string, DescribedLinear>& linears,
                       const std::vector<std::string>& others,
                       const ModuleNames& modules) {
  const LinearScheme* const common = commonest_scheme(linears);
  if (common == nullptr) return {};
  std::set<std::string> dense;
  for (const std::string& name : others) {
    dense.insert(modules.name_in_class(name));
  }
  for (const auto& [name, linear] : linears) {
    if (!linear.scheme.weights) dense.insert(modules.name_in_class(name));
  }
  nlohmann::ordered_json j;
  j["quant_method"] = "awq";
  j["bits"] = kBits;
  j["group_size"] = common->weights->group_size;
  j["zero_point"] = true;
  j["version"] = "gemm";
  j["modules_to_not_convert"] = dense;
  return j.dump(2);
}

}  // namespace llmpress
