// The forms in which the weight of a Linear lies in a file: one row of a table
// a form, recognised by the tensors that are there. A new form costs its reader
// and its row.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "compress/core/packed/row_source.h"
#include "compress/core/packed_weight.h"
#include "formats/containers/tensor_io.h"
#include "formats/linears/quantization_config.h"

namespace llmpress {

// One Linear in a file: the tensors are named `name` + ".weight" and so on.
struct StoredLinear {
  const TensorReader& reader;
  std::string name;
  const LinearScheme& scheme;  // what quantization_config says of it
  const LinearExtension& extension;
  float int8_threshold = 0;   // QuantizationConfig::int8_threshold
  std::string_view method{};  // QuantizationConfig::method

  const TensorInfo* find(std::string_view suffix) const;
  const TensorInfo& require(std::string_view suffix) const;
  std::string where() const { return "Linear '" + name + "'"; }
};

// [out, in] of `<name>.weight_shape`. Throws Error(kCorruptFile) unless it is
// two positive sizes whose product, times any width, does not overflow.
std::pair<std::size_t, std::size_t> read_matrix_shape(
    const StoredLinear& linear, std::string_view suffix = ".weight_shape");

struct LinearForm {
  std::string_view name;  // "pack-quantized", "dense", ...
  bool (*matches)(const StoredLinear&);
  PackedWeight (*read)(const StoredLinear&);
  ActivationQuant (*activations)(const StoredLinear&);
};

// The first row that matches is the form.
std::span<const LinearForm> linear_forms();
const LinearForm* find_linear_form(const StoredLinear& linear);  // or nullptr
// As read_linear() throws where there is none.
const LinearForm& require_linear_form(const StoredLinear& linear,
                                      const std::string& where);

// Of a Linear that has no form: that it is missing, or what lies at its name
// and what to do.
std::string describe_absence(const StoredLinear& linear);

// Weight, bias, activations and rotation, checked. Throws Error(kInvalidInput)
// if there is no such Linear, kUnsupported if no form fits. `where` stands in
// front of messages.
LinearWeights read_linear(const StoredLinear& linear, const std::string& where);
// Its parts: the weight, and all but the weight [out, in].
PackedWeight read_linear_weight(const StoredLinear& linear,
                                const LinearForm& form,
                                const std::string& where);
LinearWeights read_linear_rest(const StoredLinear& linear,
                               const LinearForm& form, std::size_t out,
                               std::size_t in, const std::string& where);
// The same some rows at a time: plain numbers are not copied, and checked as they
// are read.
LinearRows read_linear_rows(const StoredLinear& linear,
                            const std::string& where);

}  // namespace llmpress
