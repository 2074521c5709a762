// Writes a block program operation by operation: each function adds one and
// returns the value that it writes. Names of Linears, norms and parameters are
// within the block ("self_attn.q_proj").
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "compress/model/program.h"

namespace llmpress {

struct LinearOptions {
  bool bias = false;
  Axis axis = Axis::kOther;  // of the output
  LinearRole role = LinearRole::kPlain;
  std::optional<LinearStorage> storage{};
};

struct NormOptions {
  NormKind kind = NormKind::kRms;
  float epsilon = 1e-5f;
  bool bias = false;
  float offset = 0;            // see NormSpec
  std::size_t unit = 0;        // see NormOp; the gain has this width
  bool gain_of_width = false;  // but the gain is as wide as the value
  bool weightless = false;     // neither gain nor bias
};

class ProgramBuilder {
 public:
  explicit ProgramBuilder(std::size_t hidden);

  // The residual stream as it comes in.
  ValueId stream() const { return 0; }
  std::size_t width(ValueId value) const { return block_.values[value].width; }

  ValueId norm(ValueId x, const std::string& name, const NormOptions& options);
  // A norm without weights.
  ValueId plain_norm(ValueId x, const NormOptions& options);
  ValueId linear(ValueId x, const std::string& name, std::size_t out,
                 const LinearOptions& options = {});
  // One Linear an expert: `%` in the name stands for the expert's number, which
  // is its place in a stack too, where `options.storage` names one.
  ValueId expert_linear(ValueId routed, const std::string& name,
                        std::size_t experts, std::size_t out,
                        const LinearOptions& options = {});
  std::vector<ValueId> split(ValueId x, std::size_t groups,
                             std::vector<std::size_t> widths,
                             const std::vector<Axis>& axes);
  ValueId join(std::vector<ValueId> parts, std::size_t groups,
               std::vector<std::size_t> widths, Axis axis);
  ValueId rope(ValueId x, const RopeOp& op);
  // Adds the slot of the cache too.
  ValueId attention(ValueId q, ValueId k, ValueId v, AttentionOp op);
  ValueId activation(ValueId x, Activation activation);
  ValueId gate(ValueId gate, ValueId up, Activation activation);
  ValueId add(ValueId a, ValueId b, float factor = 1);
  ValueId multiply(ValueId a, ValueId b);  // b as wide as a or a part of it
  ValueId scale(ValueId x, float factor);
  // Any operation with one output as wide as its first input, or `width`.
  ValueId apply(OpKind op, std::vector<ValueId> in, std::size_t width = 0,
                Axis axis = Axis::kOther);

  // Indices for the operations' fields.
  std::size_t parameter(const std::string& name,
                        std::vector<std::size_t> shape);
  std::size_t constant(const std::string& name, std::vector<float> values);
  std::size_t state_slot(std::size_t size);

  // A value of a channel as it comes in, and one to go out.
  ValueId carried(const std::string& name, std::size_t width, Axis axis,
                  std::size_t channel);
  void carry_out(ValueId x, std::size_t channel);

  BlockSpec finish(ValueId result);

 private:
  ValueId value(const std::string& name, std::size_t width, Axis axis);
  std::size_t add_linear(const std::string& name, std::size_t in,
                         std::size_t out, const LinearOptions& options);

  BlockSpec block_;
};

// `name` with the number in the place of `%`.
std::string numbered(std::string_view name, std::size_t number);

}  // namespace llmpress
