#include "formats/linears/linear_form.h"

#include <array>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/awq.h"
#include "formats/linears/bitsandbytes.h"
#include "formats/linears/compressed_tensors.h"
#include "formats/linears/dense_linear.h"
#include "formats/linears/ggml_blocks.h"
#include "formats/linears/gptq.h"
#include "formats/linears/mlx.h"
#include "formats/linears/sparse_tensors.h"
#include "formats/linears/torchao.h"

namespace llmpress {

const TensorInfo* StoredLinear::find(std::string_view suffix) const {
  return reader.find(name + std::string(suffix));
}

const TensorInfo& StoredLinear::require(std::string_view suffix) const {
  return reader.require(name + std::string(suffix));
}

std::pair<std::size_t, std::size_t> read_matrix_shape(
    const StoredLinear& linear, std::string_view suffix) {
  const TensorInfo& info = linear.require(suffix);
  const auto stored = integers_of(linear.reader, info);
  if (stored.size() != 2 || stored[0] <= 0 || stored[1] <= 0) {
    fail(ErrorCode::kCorruptFile, "{}: is not two positive sizes",
         subject_of(info));
  }
  const auto out = static_cast<std::size_t>(stored[0]);
  const auto in = static_cast<std::size_t>(stored[1]);
  checked_mul(checked_mul(out, in, subject_of(info)), 64, subject_of(info));
  return {out, in};
}

namespace {

// ".qweight I32, .scales F16": what lies at a Linear's name.
std::string list_parts(const StoredLinear& linear) {
  std::string found;
  for (const TensorInfo& info : linear.reader.tensors()) {
    if (!info.name.starts_with(linear.name + ".")) continue;
    found +=
        formatted("{}{} {}", found.empty() ? "" : ", ",
                  info.name.substr(linear.name.size()), facts(info.dtype).name);
  }
  return found;
}

// Forms of other tools, by a tensor that only they have.
struct ForeignForm {
  std::string_view suffix;
  std::string_view meaning;
};
constexpr std::array kForeignForms{
    ForeignForm{".qweight",
                "GPTQ, AWQ or AutoRound, of which config.json says nothing"},
    ForeignForm{".W_q", "HQQ"},
    ForeignForm{".weight_blocks", "MXFP4 of gpt-oss"},
    ForeignForm{".blocks", "MXFP4 of gpt-oss"},
    ForeignForm{".biases", "MLX, of which config.json says nothing"},
    ForeignForm{".weight.data", "quanto"},
    ForeignForm{".weight._data", "quanto"},
    ForeignForm{".weight:_data", "torchao's older form"},
    ForeignForm{".weight:tensor_data_names", "torchao's older form"},
    ForeignForm{".weight_qdata", "torchao's older form"},
    ForeignForm{".codebooks", "AQLM"},
    ForeignForm{".centroids.weight", "VPTQ"},
    ForeignForm{".SCB", "LLM.int8() without its .weight"},
    ForeignForm{".weight.absmax",
                "bitsandbytes without .weight.quant_state, which says its "
                "shape"},
};

// What is wrong with `<name>.weight` as a matrix of plain numbers.
std::string describe_weight(const StoredLinear& linear,
                            const TensorInfo& weight) {
  const std::string dtype(facts(weight.dtype).name);
  const bool eight = weight.dtype == DType::kF8E4M3 ||
                     weight.dtype == DType::kF8E5M2 ||
                     weight.dtype == DType::kI8;
  if (weight.shape.size() != 2) {
    return "has shape " + shape_text(weight.shape) + ", wanted 2 dimensions";
  }
  if (eight && linear.find(".weight_scale") == nullptr) {
    return "is " + dtype +
           " without a scale (.weight_scale, .weight_scale_inv), without "
           "which its codes mean nothing";
  }
  return "is " + dtype + ", wanted F64, F32, F16 or BF16";
}

}  // namespace

std::span<const LinearForm> linear_forms() {
  static constexpr std::array kForms{
      LinearForm{"pack-quantized", is_pack_quantized, read_pack_quantized,
                 read_activations},
      LinearForm{"micro-fp4", is_micro_fp4, read_micro_fp4, read_activations},
      LinearForm{"sparse", is_sparse_linear, read_sparse_linear,
                 read_activations},
      LinearForm{"ggml-blocks", is_ggml_blocks, read_ggml_blocks,
                 read_activations},
      LinearForm{"gptq", is_gptq, read_gptq, read_activations},
      LinearForm{"awq", is_awq, read_awq, read_activations},
      LinearForm{"mlx", is_mlx, read_mlx, read_activations},
      LinearForm{"torchao", is_torchao, read_torchao, torchao_activations},
      LinearForm{"bitsandbytes-4bit", is_table4, read_table4, read_activations},
      LinearForm{"bitsandbytes-int8", is_bitsandbytes_int8,
                 read_bitsandbytes_int8, bitsandbytes_int8_activations},
      LinearForm{"int-quantized", is_int_quantized, read_int_quantized,
                 read_activations},
      LinearForm{"float-quantized", is_float_quantized, read_float_quantized,
                 read_activations},
      LinearForm{"dense", is_dense_linear, read_dense_linear,
                 dense_activations},
  };
  return kForms;
}

const LinearForm* find_linear_form(const StoredLinear& linear) {
  for (const LinearForm& form : linear_forms()) {
    if (form.matches(linear)) return &form;
  }
  return nullptr;
}

std::string describe_absence(const StoredLinear& linear) {
  const std::string weight = "'" + linear.name + ".weight'";
  for (const ForeignForm& form : kForeignForms) {
    if (linear.find(form.suffix) == nullptr) continue;
    return formatted(
        "'{}' is stored as {} ({}), which is not read; give the model that it "
        "was made from",
        linear.name, form.meaning, list_parts(linear));
  }
  if (const TensorInfo* const info = linear.find(".weight")) {
    return weight + " " + describe_weight(linear, *info);
  }
  const std::string found = list_parts(linear);
  if (found.empty()) return weight + " is missing";
  return weight + " is missing beside " + found;
}

namespace {

// Numbers that check() of the core leaves to whoever brought them in.
void check_values(const StoredLinear& linear, const PackedWeight& weight) {
  const auto subject = [&](const char* suffix) {
    const TensorInfo* const info = linear.find(suffix);
    return info != nullptr ? subject_of(*info) : linear.where();
  };
  if (const auto* const dense = std::get_if<DenseWeight>(&weight)) {
    check_finite(dense->dtype, dense->data, dense->in, subject(".weight"));
  } else if (const auto* const fp8 = std::get_if<Fp8Weight>(&weight)) {
    check_finite(fp8->format, std::as_bytes(std::span(fp8->codes)), fp8->in,
                 subject(".weight"));
  } else if (const auto* const sparse = std::get_if<SparseWeight>(&weight)) {
    if (sparse->bits != 0) return;
    check_finite(sparse->dtype, sparse->data, sparse->row_offsets.back(),
                 linear.where() + ": kept values");
  }
}

}  // namespace

const LinearForm& require_linear_form(const StoredLinear& linear,
                                      const std::string& where) {
  const LinearForm* const form = find_linear_form(linear);
  if (form != nullptr) return *form;
  const bool missing = list_parts(linear).empty();
  fail(missing ? ErrorCode::kInvalidInput : ErrorCode::kUnsupported, "{}: {}",
       where, describe_absence(linear));
}

LinearWeights read_linear_rest(const StoredLinear& linear,
                               const LinearForm& form, std::size_t out,
                               std::size_t in, const std::string& where) {
  LinearWeights rest{.input = form.activations(linear),
                     .input_hadamard = linear.extension.input_hadamard};
  if (rest.input_hadamard != 0 && in % rest.input_hadamard != 0) {
    fail(ErrorCode::kCorruptFile,
         "{}: Linear '{}': input_hadamard {} does not divide {} inputs", where,
         linear.name, rest.input_hadamard, in);
  }
  if (linear.find(".bias") != nullptr) {
    rest.bias = read_vector(linear.reader, linear.name + ".bias", out);
  }
  return rest;
}

PackedWeight read_linear_weight(const StoredLinear& linear,
                                const LinearForm& form,
                                const std::string& where) {
  PackedWeight weight = form.read(linear);
  check(weight, where + ": Linear '" + linear.name + "'");
  check_values(linear, weight);
  return weight;
}

LinearWeights read_linear(const StoredLinear& linear,
                          const std::string& where) {
  const LinearForm& form = require_linear_form(linear, where);
  PackedWeight weight = read_linear_weight(linear, form, where);
  LinearWeights result =
      read_linear_rest(linear, form, rows_of(weight), cols_of(weight), where);
  result.weight = std::move(weight);
  return result;
}

LinearRows read_linear_rows(const StoredLinear& linear,
                            const std::string& where) {
  const LinearForm& form = require_linear_form(linear, where);
  if (form.matches != is_dense_linear) {
    return rows_of_linear(read_linear(linear, where));
  }
  RowSource W = dense_rows(linear.reader, linear.require(".weight"));
  LinearWeights rest = read_linear_rest(linear, form, W.rows, W.cols, where);
  return {.W = std::move(W), .rest = std::move(rest)};
}

}  // namespace llmpress
