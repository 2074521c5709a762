// Operations on every element of a row.
#pragma once

#include <cstddef>
#include <limits>
#include <optional>

#include "compress/kernels/activations.h"
#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// out = activation(x).
struct ActivationOp {
  Activation activation = Activation::kSilu;

  bool operator==(const ActivationOp&) const = default;
};

// in: gate, up; out = activation(gate) * up.
struct GateOp {
  Activation activation = Activation::kSilu;

  bool operator==(const GateOp&) const = default;
};

// GPT-OSS's clamped SwiGLU. in: gate, up; with g = min(gate, limit),
// u = clamp(up, -limit, limit): out = (u + 1) * g * sigmoid(alpha * g).
struct ClampedGateOp {
  float alpha = 1.702f, limit = 7.0f;

  bool operator==(const ClampedGateOp&) const = default;
};

// in: a, b; out = a + factor * b.
struct AddOp {
  float factor = 1;

  bool operator==(const AddOp&) const = default;
};

// in: a [tokens, width], b [tokens, width / unit]; out = a * b, each b
// multiplying `unit` columns.
struct MultiplyOp {
  std::size_t unit = 1;

  bool operator==(const MultiplyOp&) const = default;
};

// out = clamp(factor * x, -limit, limit) (* the parameter [width], or [1]).
struct ScaleOp {
  float factor = 1;
  std::optional<std::size_t> parameter{};
  float limit = std::numeric_limits<float>::infinity();

  bool operator==(const ScaleOp&) const = default;
};

// Llama 4's attention temperature: out = x (1 + slope ln(1 + floor((p + 1) /
// floor_positions))) for position p (`offset` instead of the 1 in p + 1).
struct PositionScaleOp {
  float slope = 0.1f;
  double floor_positions = 8192;
  double offset = 1;

  bool operator==(const PositionScaleOp&) const = default;
};

void run(const ActivationOp&, const OpContext&, const OpArguments&);
void run(const GateOp&, const OpContext&, const OpArguments&);
void run(const ClampedGateOp&, const OpContext&, const OpArguments&);
void run(const AddOp&, const OpContext&, const OpArguments&);
void run(const MultiplyOp&, const OpContext&, const OpArguments&);
void run(const ScaleOp&, const OpContext&, const OpArguments&);
void run(const PositionScaleOp&, const OpContext&, const OpArguments&);

void backward(const ActivationOp&, const OpContext&, const OpGradients&);
void backward(const GateOp&, const OpContext&, const OpGradients&);
void backward(const ClampedGateOp&, const OpContext&, const OpGradients&);
void backward(const AddOp&, const OpContext&, const OpGradients&);
void backward(const MultiplyOp&, const OpContext&, const OpGradients&);
void backward(const ScaleOp&, const OpContext&, const OpGradients&);
void backward(const PositionScaleOp&, const OpContext&, const OpGradients&);

}  // namespace llmpress
