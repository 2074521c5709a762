#include "formats/linears/transposed_ints.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "compress/core/float_bits.h"
#include "compress/core/formatted.h"

namespace llmpress {

std::string beyond_weights(const LinearWeights& linear) {
  if (linear.input_hadamard != 0) return "an online rotation";
  if (linear.input.kind != ActivationQuant::Kind::kNone) {
    return describe(linear.weight) + " with rounded inputs";
  }
  return {};
}

std::optional<GroupedIntWeight> as_groups(const PackedWeight& weight) {
  if (const auto* const groups = std::get_if<GroupedIntWeight>(&weight)) {
    return *groups;
  }
  const auto* const w = std::get_if<Int8Weight>(&weight);
  if (w == nullptr || !w->outlier_columns.empty()) return std::nullopt;
  constexpr int kMiddle = 128;
  GroupedIntWeight g{.out = w->out,
                     .in = w->in,
                     .bits = 8,
                     .group_size = w->in,
                     .symmetric = w->zeros.empty(),
                     .scale_dtype = w->scale_dtype};
  std::vector<std::uint8_t> codes(w->codes.size());
  std::ranges::transform(w->codes, codes.begin(), [](std::int8_t q) {
    return static_cast<std::uint8_t>(q + kMiddle);
  });
  g.codes = pack_rows({codes, w->out, w->in}, g.bits);
  for (std::size_t o = 0; o < w->out; ++o) {
    g.scales.push_back(w->scales[w->scales.size() == 1 ? 0 : o]);
    if (g.symmetric) continue;
    const int zero = w->zeros[w->zeros.size() == 1 ? 0 : o] + kMiddle;
    if (zero < 0 || zero > 255) return std::nullopt;
    g.zeros.push_back(static_cast<std::uint8_t>(zero));
  }
  return g;
}

NamedTensor dense_tensor(const std::string& name, const DenseWeight& weight) {
  return {.name = name + ".weight",
          .dtype = weight.dtype,
          .shape = {weight.out, weight.in},
          .bytes = weight.data};
}

void require_f16_scales(const std::string& name, const GroupedIntWeight& weight,
                        std::string_view format) {
  // Of float32 it would be chance, which a run cannot know before its end.
  const bool held =
      weight.scale_dtype != DType::kF32 &&
      std::ranges::all_of(weight.scales, [](float s) {
        return float_bits::f16_to_float(float_bits::f16_from_float(s)) == s;
      });
  if (held) return;
  fail(ErrorCode::kUnsupported,
       "Linear '{}': scales in {} cannot be stored as {}, whose scales are "
       "f16: quantize with 'scale_dtype: f16'",
       name, word_of(weight.scale_dtype), format);
}

const LinearScheme* commonest_scheme(
    const std::map<std::string, DescribedLinear>& linears) {
  std::vector<std::pair<const LinearScheme*, std::size_t>> counts;
  for (const auto& entry : linears) {
    const LinearScheme& scheme = entry.second.scheme;
    if (!scheme.weights) continue;
    const auto at = std::ranges::find_if(
        counts, [&](const auto& count) { return *count.first == scheme; });
    if (at == counts.end()) {
      counts.emplace_back(&scheme, 1);
    } else {
      ++at->second;
    }
  }
  const auto most = std::ranges::max_element(
      counts, {}, &std::pair<const LinearScheme*, std::size_t>::second);
  return most == counts.end() ? nullptr : most->first;
}

}  // namespace llmpress
