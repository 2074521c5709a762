#include "formats/linear_form.h"

#include <array>

#include "compress/core/error.h"
#include "formats/dense_linear.h"

namespace llmpress {

const TensorInfo* StoredLinear::find(std::string_view suffix) const {
  return reader.find(name + std::string(suffix));
}

const TensorInfo& StoredLinear::require(std::string_view suffix) const {
  return reader.require(name + std::string(suffix));
}

namespace {

// Says what lies at a Linear's name instead of a form that this version knows.
[[noreturn]] void reject(const StoredLinear& linear, const std::string& where) {
  std::string found;
  for (const TensorInfo& info : linear.reader.tensors()) {
    if (!info.name.starts_with(linear.name + ".")) continue;
    found += (found.empty() ? "" : ", ") +
             info.name.substr(linear.name.size()) + " " +
             std::string(facts(info.dtype).name);
  }
  if (found.empty()) {
    throw Error(ErrorCode::kInvalidInput,
                where + ": Linear '" + linear.name + "' is missing");
  }
  throw Error(
      ErrorCode::kUnsupported,
      where + ": Linear '" + linear.name +
          "' is stored in a form that this version does not know: " + found);
}

}  // namespace

std::span<const LinearForm> linear_forms() {
  static constexpr std::array kForms{
      LinearForm{"dense", is_dense_linear, read_dense_linear},
  };
  return kForms;
}

const LinearForm* find_linear_form(const StoredLinear& linear) {
  for (const LinearForm& form : linear_forms()) {
    if (form.matches(linear)) return &form;
  }
  return nullptr;
}

LinearWeights read_linear(const StoredLinear& linear,
                          const std::string& where) {
  const LinearForm* const form = find_linear_form(linear);
  if (form == nullptr) reject(linear, where);
  LinearWeights result{.weight = form->read(linear)};
  check(result.weight, linear.name);
  if (linear.find(".bias") != nullptr) {
    result.bias = read_vector(linear.reader, linear.name + ".bias",
                              rows_of(result.weight));
  }
  return result;
}

}  // namespace llmpress
