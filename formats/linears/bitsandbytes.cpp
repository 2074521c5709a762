#include "formats/linears/bitsandbytes.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/table4.h"
#include "formats/containers/typed_tensors.h"
#include "formats/files/json_check.h"

namespace llmpress {
namespace {

using json = nlohmann::json;
using Shape = std::vector<std::size_t>;

constexpr std::string_view kState = ".weight.quant_state.bitsandbytes__";
constexpr std::size_t kNestedBlock = 256;
// A threshold that no value reaches: the library's grid (of 127 steps) without
// columns that stay in floating point.
constexpr float kNoOutliers = 1e30f;

std::string kind_name(Table4Kind kind) {
  return kind == Table4Kind::kNf4 ? "nf4" : "fp4";
}

// As Python's json.dumps writes it: readers parse it, but the octets are part
// of the file's hash.
std::string quant_state(const Table4Weight& w, DType compute) {
  std::string text = formatted(
      "{{\"quant_type\": \"{}\", \"blocksize\": {}, \"dtype\": \"{}\", "
      "\"shape\": [{}, {}]",
      kind_name(w.kind), w.block_size, facts(compute).torch_name, w.out, w.in);
  if (!w.absmax_codes.empty()) {
    text += formatted(
        ", \"nested_blocksize\": {}, \"nested_dtype\": \"float32\", "
        "\"nested_offset\": {}",
        kNestedBlock, json(static_cast<double>(w.nested_offset)).dump());
  }
  return text + "}";
}

std::vector<float> copy_of(std::span<const float> values) {
  return {values.begin(), values.end()};
}

// A table that differs from the one its name stands for would decode wrongly.
void check_map(const StoredLinear& l, const TensorInfo* info,
               std::span<const float> wanted) {
  if (info == nullptr) return;
  const auto found = floats_of(l.reader, *info);
  bool same = found.size() == wanted.size();
  for (std::size_t k = 0; same && k < wanted.size(); ++k) {
    same = std::abs(found[k] - wanted[k]) <= 1e-6f;
  }
  if (!same) {
    fail(ErrorCode::kUnsupported, "{}: is not the table of its type",
         subject_of(*info));
  }
}

const TensorInfo* find_state(const StoredLinear& l, Table4Kind kind) {
  return l.find(std::string(kState) + kind_name(kind));
}

std::size_t positive(const json& value, const std::string& what,
                     const std::string& where) {
  if (!value.is_number_unsigned() || value == 0U) {
    fail(ErrorCode::kCorruptFile, "{}: '{}' is not a positive size", where,
         what);
  }
  return value.get<std::size_t>();
}

// block_size, out, in and nested_offset from the JSON object in the file.
void read_state(const StoredLinear& l, const TensorInfo& info,
                Table4Weight& w) {
  const auto octets = elements_of<char>(l.reader, info, DType::kU8);
  const std::string text(octets.begin(), octets.end());
  const std::string where = subject_of(info);
  check_json_object(text, where);
  const json state = json::parse(text);
  w.block_size = positive(state.value("blocksize", json()), "blocksize", where);
  const auto shape = state.find("shape");
  if (shape == state.end() || !shape->is_array() || shape->size() != 2) {
    fail(ErrorCode::kCorruptFile, "{}: 'shape' is not [out, in]", where);
  }
  w.out = positive((*shape)[0], "shape", where);
  w.in = positive((*shape)[1], "shape", where);
  checked_mul(checked_mul(w.out, w.in, where), 64, where);
  const auto offset = state.find("nested_offset");
  if (offset == state.end()) return;
  if (!offset->is_number() ||
      positive(state.value("nested_blocksize", json()), "nested_blocksize",
               where) != kNestedBlock) {
    fail(ErrorCode::kUnsupported,
         "{}: double quantization other than in blocks of 256", where);
  }
  w.nested_offset = static_cast<float>(offset->get<double>());
}

// The largest |w| of a row whose 127th part is `scale`, if a float has it.
std::optional<float> scb_of(float scale) {
  const float guess = scale * 127.0f;
  for (const float scb : {guess, std::nextafter(guess, INFINITY),
                          std::nextafter(guess, -INFINITY)}) {
    if (scb / 127.0f == scale) return scb;
  }
  return std::nullopt;
}

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  fail(ErrorCode::kUnsupported,
       "Linear '{}': {} cannot be stored as bitsandbytes; write "
       "compressed-tensors",
       name, what);
}

EncodedLinear encode_int8(const std::string& name, const LinearWeights& linear,
                          const Int8Weight& w) {
  const ActivationQuant& a = linear.input;
  if (!w.zeros.empty()) refuse(name, "int8 with zero points");
  if (!w.outlier_columns.empty()) refuse(name, "int8 with outlier columns");
  // The library rounds the inputs of its int8 Linears, always and like this.
  if (a.kind != ActivationQuant::Kind::kInt || a.bits != 8 || !a.symmetric ||
      a.range != ActivationQuant::Range::kToken) {
    refuse(name, "int8 whose inputs are not rounded to int8 by token");
  }
  std::vector<float> scb(w.out);
  for (std::size_t o = 0; o < w.out; ++o) {
    const auto value = scb_of(w.scales[w.scales.size() == 1 ? 0 : o]);
    if (!value) refuse(name, formatted("the scale of row {}", o));
    scb[o] = *value;
  }
  EncodedLinear e;
  e.scheme.format = "bitsandbytes-int8";
  e.extension.outlier_threshold =
      a.outlier_threshold < kNoOutliers ? a.outlier_threshold : 0;
  e.tensors.push_back(
      tensor_of(name + ".weight", DType::kI8, {w.out, w.in}, w.codes));
  e.tensors.push_back(tensor_of(name + ".SCB", DType::kF32, {w.out}, scb));
  e.tensors.push_back(
      tensor_of<std::uint8_t>(name + ".weight_format", DType::kU8, {}, {0}));
  return e;
}

}  // namespace

std::vector<NamedTensor> table4_tensors(const std::string& name,
                                        const Table4Weight& w, DType compute) {
  const std::string p = name + ".weight";
  const bool nested = !w.absmax_codes.empty();
  const std::string state = quant_state(w, compute);
  const auto map = copy_of(table4_values(w.kind));
  std::vector<NamedTensor> tensors;
  tensors.push_back(tensor_of(p, DType::kU8, {w.codes.size(), 1}, w.codes));
  tensors.push_back(nested ? tensor_of(p + ".absmax", DType::kU8,
                                       {w.absmax_codes.size()}, w.absmax_codes)
                           : tensor_of(p + ".absmax", DType::kF32,
                                       {w.absmax.size()}, w.absmax));
  tensors.push_back(
      tensor_of(p + ".quant_map", DType::kF32, {map.size()}, map));
  if (nested) {
    const auto nested_map = copy_of(nested_absmax_map());
    tensors.push_back(tensor_of(p + ".nested_absmax", DType::kF32,
                                {w.nested_absmax.size()}, w.nested_absmax));
    tensors.push_back(tensor_of(p + ".nested_quant_map", DType::kF32,
                                {nested_map.size()}, nested_map));
  }
  tensors.push_back(tensor_of(
      formatted("{}{}{}", name, kState, kind_name(w.kind)), DType::kU8,
      {state.size()}, std::vector<char>(state.begin(), state.end())));
  return tensors;
}

EncodedLinear encode_bitsandbytes(const std::string& name,
                                  const LinearWeights& linear, DType compute) {
  if (linear.input_hadamard != 0) refuse(name, "an online rotation");
  EncodedLinear e;
  if (const auto* const w = std::get_if<Int8Weight>(&linear.weight)) {
    e = encode_int8(name, linear, *w);
  } else {
    if (linear.input.kind != ActivationQuant::Kind::kNone) {
      refuse(name, describe(linear.weight) + " with rounded inputs");
    }
    if (const auto* const t = std::get_if<Table4Weight>(&linear.weight)) {
      e.tensors = table4_tensors(name, *t, compute);
      e.scheme.format = "bitsandbytes-" + kind_name(t->kind) +
                        (t->absmax_codes.empty() ? "" : "-nested");
    } else if (const auto* const d = std::get_if<DenseWeight>(&linear.weight)) {
      e.tensors.push_back({.name = name + ".weight",
                           .dtype = d->dtype,
                           .shape = {d->out, d->in},
                           .bytes = d->data});
    } else {
      refuse(name, describe(linear.weight));
    }
  }
  add_bias(name, linear, compute, e);
  return e;
}

bool is_table4(const StoredLinear& l) {
  return find_state(l, Table4Kind::kNf4) != nullptr ||
         find_state(l, Table4Kind::kFp4) != nullptr;
}

PackedWeight read_table4(const StoredLinear& l) {
  Table4Weight w;
  const TensorInfo* state = find_state(l, w.kind = Table4Kind::kNf4);
  if (state == nullptr) state = find_state(l, w.kind = Table4Kind::kFp4);
  read_state(l, *state, w);
  // Some writers view the octets as another type; only the octets count.
  const TensorBytes codes = l.reader.read(l.require(".weight"));
  w.codes.resize(codes.bytes.size());
  std::transform(codes.bytes.begin(), codes.bytes.end(), w.codes.begin(),
                 [](std::byte b) { return std::to_integer<std::uint8_t>(b); });
  check_map(l, l.find(".weight.quant_map"), table4_values(w.kind));
  const TensorInfo& absmax = l.require(".weight.absmax");
  if (absmax.dtype == DType::kU8) {
    w.absmax_codes = elements_of<std::uint8_t>(l.reader, absmax, DType::kU8);
    w.nested_absmax = elements_of<float>(
        l.reader, l.require(".weight.nested_absmax"), DType::kF32);
    check_map(l, l.find(".weight.nested_quant_map"), nested_absmax_map());
  } else {
    w.absmax = elements_of<float>(l.reader, absmax, DType::kF32);
  }
  return w;
}

bool is_bitsandbytes_int8(const StoredLinear& l) {
  return l.find(".SCB") != nullptr && l.find(".weight") != nullptr;
}

PackedWeight read_bitsandbytes_int8(const StoredLinear& l) {
  const TensorInfo& info = l.require(".weight");
  if (info.shape.size() != 2) require_shape(info, Shape{0, 0});
  Int8Weight w{.out = info.shape[0], .in = info.shape[1]};
  w.codes = elements_of<std::int8_t>(l.reader, info, DType::kI8);
  if (const TensorInfo* const format = l.find(".weight_format")) {
    const auto order = elements_of<std::uint8_t>(l.reader, *format, DType::kU8);
    if (order.size() != 1 || order[0] != 0) {
      fail(ErrorCode::kUnsupported, "{}: a layout other than rows",
           subject_of(*format));
    }
  }
  const TensorInfo& scb = l.require(".SCB");
  require_shape(scb, Shape{w.out});
  w.scales = elements_of<float>(l.reader, scb, DType::kF32);
  for (float& s : w.scales) s /= 127.0f;
  return w;
}

ActivationQuant bitsandbytes_int8_activations(const StoredLinear& l) {
  return {.kind = ActivationQuant::Kind::kInt,
          .outlier_threshold =
              l.int8_threshold > 0 ? l.int8_threshold : kNoOutliers};
}

std::string bitsandbytes_config(const BitsandbytesFacts& f) {
  nlohmann::ordered_json j;
  j["_load_in_4bit"] = !f.int8;
  j["_load_in_8bit"] = f.int8;
  j["bnb_4bit_compute_dtype"] = f.compute;
  j["bnb_4bit_quant_storage"] = "uint8";
  j["bnb_4bit_quant_type"] = f.int8 || f.fp4 ? "fp4" : "nf4";
  j["bnb_4bit_use_double_quant"] = f.nested;
  j["llm_int8_enable_fp32_cpu_offload"] = false;
  j["llm_int8_has_fp16_weight"] = false;
  j["llm_int8_skip_modules"] = f.skipped;
  j["llm_int8_threshold"] = f.threshold;
  j["load_in_4bit"] = !f.int8;
  j["load_in_8bit"] = f.int8;
  j["quant_method"] = "bitsandbytes";
  return j.dump(2);
}

}  // namespace llmpress
