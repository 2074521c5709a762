#include "formats/linears/gptq.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "compress/core/bit_packing.h"
#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/transposed_ints.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

constexpr std::string_view kVersion1 = "gptq";
constexpr std::string_view kVersion2 = "gptq_v2";
constexpr std::size_t kUnit = 32;  // sizes are multiples of it

bool has_gptq_bits(int bits) {
  return bits == 2 || bits == 3 || bits == 4 || bits == 8;
}

// [groups, out] zero points as they are stored.
std::vector<std::uint8_t> stored_zeros(const StoredLinear& l,
                                       const GroupedIntWeight& w) {
  const TensorInfo& info = l.require(".qzeros");
  const std::size_t per_row = packed_words(w.out, w.bits);
  require_shape(info, Shape{w.groups(), per_row});
  const auto words = elements_of<std::uint32_t>(l.reader, info, DType::kI32);
  std::vector<std::uint8_t> zeros(w.groups() * w.out);
  for (std::size_t g = 0; g < w.groups(); ++g) {
    unpack_codes(std::span(words).subspan(g * per_row, per_row), w.bits,
                 std::span(zeros).subspan(g * w.out, w.out));
  }
  return zeros;
}

void read_zeros(const StoredLinear& l, GroupedIntWeight& w) {
  std::vector<std::uint8_t> stored = stored_zeros(l, w);
  const int middle = 1 << (w.bits - 1);
  const auto all = [&](int value) {
    return std::ranges::all_of(stored, [&](auto z) { return z == value; });
  };
  const bool declared = l.scheme.weights->symmetric;
  if (declared && (all(middle) || all(middle - 1))) {
    w.symmetric = true;
    return;
  }
  if (l.scheme.format == kVersion1) {
    const unsigned mask = (1U << w.bits) - 1;
    for (auto& z : stored) z = static_cast<std::uint8_t>((z + 1U) & mask);
  }
  w.zeros =
      transposed(std::span<const std::uint8_t>(stored), w.groups(), w.out);
}

void read_group_index(const StoredLinear& l, GroupedIntWeight& w) {
  const TensorInfo* const info = l.find(".g_idx");
  if (info == nullptr) return;
  require_shape(*info, Shape{w.in});
  const auto stored = integers_of(l.reader, *info);
  bool plain = true;
  for (std::size_t i = 0; i < w.in; ++i) {
    const std::int64_t g = stored[i];
    if (g < 0 || g > std::numeric_limits<std::int32_t>::max()) {
      fail(ErrorCode::kCorruptFile, "{}: holds group {}", subject_of(*info), g);
    }
    plain = plain && static_cast<std::size_t>(g) == i / w.group_size;
    w.g_idx.push_back(static_cast<std::uint32_t>(g));
  }
  if (plain) w.g_idx.clear();
}

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  fail(ErrorCode::kUnsupported,
       "Linear '{}': {} cannot be stored as GPTQ; write compressed-tensors",
       name, what);
}

void check_held(const std::string& name, const GroupedIntWeight& w) {
  if (!has_gptq_bits(w.bits)) refuse(name, formatted("{} bits", w.bits));
  if (!w.float_zeros.empty()) refuse(name, "a real zero point (HQQ)");
  if (w.in % kUnit != 0 || w.out % kUnit != 0) {
    refuse(name, formatted("{} x {}, which 32 does not divide,", w.out, w.in));
  }
  if (w.in % w.group_size != 0) {
    refuse(name, formatted("a short last group ({} inputs in groups of {})",
                           w.in, w.group_size));
  }
  require_f16_scales(name, w, "GPTQ");
}

EncodedLinear encode_groups(const std::string& p, const GroupedIntWeight& w) {
  check_held(p, w);
  EncodedLinear e;
  e.scheme.format = w.symmetric ? kVersion1 : kVersion2;
  e.scheme.weights =
      QuantArgs{.bits = w.bits,
                .symmetric = w.symmetric,
                .strategy = "group",
                .group_size = w.group_size < w.in ? w.group_size : 0,
                .order_by_group = !w.g_idx.empty()};
  const std::size_t words = w.words_per_row(), groups = w.groups();
  e.tensors.push_back(tensor_of(p + ".qweight", DType::kI32, {words, w.out},
                                transposed(std::span(w.codes), w.out, words)));
  const auto middle = static_cast<std::uint8_t>(1 << (w.bits - 1));
  const auto zeros =
      w.symmetric ? std::vector<std::uint8_t>(
                        groups * w.out, static_cast<std::uint8_t>(middle - 1))
                  : transposed(std::span(w.zeros), w.out, groups);
  e.tensors.push_back(tensor_of(p + ".qzeros", DType::kI32,
                                {groups, packed_words(w.out, w.bits)},
                                pack_rows({zeros, groups, w.out}, w.bits)));
  e.tensors.push_back(
      float_tensor(p + ".scales", DType::kF16, {groups, w.out},
                   transposed(std::span(w.scales), w.out, groups)));
  std::vector<std::uint32_t> g_idx = w.g_idx;
  for (std::size_t i = g_idx.size(); i < w.in; ++i) {
    g_idx.push_back(static_cast<std::uint32_t>(i / w.group_size));
  }
  e.tensors.push_back(tensor_of(p + ".g_idx", DType::kI32, {w.in}, g_idx));
  return e;
}

nlohmann::ordered_json settings_of(const QuantArgs& args) {
  nlohmann::ordered_json j;
  j["bits"] = args.bits;
  j["desc_act"] = args.order_by_group;
  j["group_size"] =
      args.group_size == 0 ? -1 : static_cast<std::int64_t>(args.group_size);
  j["sym"] = args.symmetric;
  return j;
}

// "+:^model\.layers\.0\.mlp\.up_proj$"
std::string exactly(char sign, const std::string& module) {
  std::string pattern = {sign, ':', '^'};
  for (const char c : module) {
    if (c == '.') pattern += '\\';
    pattern += c;
  }
  return pattern + "$";
}

}  // namespace

bool is_gptq(const StoredLinear& l) {
  return l.find(".qweight") != nullptr &&
         (l.scheme.format == kVersion1 || l.scheme.format == kVersion2);
}

PackedWeight read_gptq(const StoredLinear& l) {
  const QuantArgs& args = *l.scheme.weights;
  if (!has_gptq_bits(args.bits)) {
    fail(ErrorCode::kUnsupported, "{}: GPTQ of {} bits", l.where(), args.bits);
  }
  const TensorInfo& info = l.require(".qweight");
  const auto [words, out] = require_matrix(info);
  const auto bits = static_cast<std::size_t>(args.bits);
  GroupedIntWeight w{.out = out, .in = words * kUnit / bits, .bits = args.bits};
  if (w.in == 0 || w.in * bits != words * kUnit) {
    fail(ErrorCode::kCorruptFile,
         "{}: {} words hold no whole number of codes of {} bits",
         subject_of(info), words, bits);
  }
  w.group_size = args.group_size == 0 ? w.in : std::min(args.group_size, w.in);
  w.codes =
      transposed(std::span<const std::uint32_t>(
                     elements_of<std::uint32_t>(l.reader, info, DType::kI32)),
                 words, out);
  const TensorInfo& scales = l.require(".scales");
  require_shape(scales, Shape{w.groups(), out});
  w.scale_dtype = scale_dtype_of(scales);
  w.scales = transposed(std::span<const float>(floats_of(l.reader, scales)),
                        w.groups(), out);
  read_zeros(l, w);
  read_group_index(l, w);
  return w;
}

EncodedLinear encode_gptq(const std::string& name,
                          const LinearWeights& linear) {
  if (const std::string what = beyond_weights(linear); !what.empty()) {
    refuse(name, what);
  }
  EncodedLinear e;
  if (const auto* const dense = std::get_if<DenseWeight>(&linear.weight)) {
    e.tensors.push_back(dense_tensor(name, *dense));
  } else if (const auto groups = as_groups(linear.weight)) {
    e = encode_groups(name, *groups);
  } else {
    refuse(name, describe(linear.weight));
  }
  add_bias(name, linear, DType::kF16, e);
  return e;
}

std::string gptq_config(const std::map<std::string, DescribedLinear>& linears,
                        const std::vector<std::string>& others,
                        const ModuleNames& modules) {
  const LinearScheme* const common = commonest_scheme(linears);
  if (common == nullptr) return {};
  nlohmann::ordered_json j = settings_of(*common->weights);
  nlohmann::ordered_json dynamic = nlohmann::ordered_json::object();
  bool head = false;
  for (const auto& [name, linear] : linears) {
    const std::string module = modules.name_in_class(name);
    const bool packed = linear.scheme.weights.has_value();
    head = head || (packed && is_head_name(name));
    if (!packed) {
      dynamic[exactly('-', module)] = nlohmann::ordered_json::object();
    } else if (linear.scheme != *common) {
      dynamic[exactly('+', module)] = settings_of(*linear.scheme.weights);
    }
  }
  for (const std::string& name : others) {
    if (is_head_name(name)) continue;  // `lm_head` says it
    dynamic[exactly('-', modules.name_in_class(name))] =
        nlohmann::ordered_json::object();
  }
  j["lm_head"] = head;
  j["quant_method"] = "gptq";
  j["checkpoint_format"] = common->format;
  j["pack_dtype"] = "int32";
  if (!dynamic.empty()) j["dynamic"] = dynamic;
  j["meta"] = {{"quantizer", {"llmpress:" LLMPRESS_VERSION}}};
  return j.dump(2);
}

}  // namespace llmpress
