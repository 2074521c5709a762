// A Linear laid out for the vector kernels: what make_linear_kernel() makes of
// stored weights, in a form that can be kept as octets and read where it lies.
// The same for every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/kernels/panel_weight.h"
#include "compress/kernels/sparse_kernels.h"

namespace llmpress {

// What a kernel does around its product.
struct LinearFrame {
  std::size_t out = 0, in = 0;
  std::string weight_name{};  // describe() of the weight
  std::vector<float> bias{};  // [out] or empty
  ActivationQuant input{};
  std::size_t input_hadamard = 0;
  bool integer_codes = false;  // has_integer_codes() of the weight
  // Of an Int8Weight, ascending.
  std::vector<std::uint32_t> outlier_columns{};

  // Whether codes of activations are multiplied with codes of weights: sums of
  // integers go through all inputs of a group of weights, which may be of many
  // scales of inputs: those are multiplied as floats.
  bool multiplies_integers() const;
};
LinearFrame frame_of(const LinearWeights& linear);
// Throws Error(kInvalidArgument) for what no kernel does.
void check_frame(const LinearFrame& frame);

struct LaidOutLinear {
  LinearFrame frame{};
  MatrixF outlier_rows{};  // [outlier columns, out]
  // block_code_sums(), where activations have zeros.
  std::vector<std::int32_t> code_sums{};
  std::variant<PanelWeight, SparsePanels> weight{};
};

// nullopt for a weight without a layout (make_panels, make_sparse_panels).
// Throws as check_frame().
std::optional<LaidOutLinear> lay_out(const LinearWeights& linear);

// Changes with what to_octets() writes.
inline constexpr int kLayoutVersion = 1;

// All of it, in whole vectors (kVectorBytes). Numbers are as the machine has them.
std::vector<std::byte> to_octets(const LaidOutLinear& linear);
// What to_octets() gave: views of `octets`, which begin at a multiple of
// kVectorBytes and live as long as `owner`. Throws Error(kCorruptFile) with
// `where` in front for anything that a kernel could not run safely.
LaidOutLinear from_octets(std::span<const std::byte> octets,
                          std::shared_ptr<const void> owner,
                          const std::string& where);

}  // namespace llmpress
