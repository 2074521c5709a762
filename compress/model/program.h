// A decoder block as a program: a short list of operations over named values.
// A family's file writes the program (families/); everything that calibration,
// surgery and planning ask of a block is derived from it.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "compress/model/ops/attention.h"
#include "compress/model/ops/columns.h"
#include "compress/model/ops/convolution.h"
#include "compress/model/ops/delta_rule.h"
#include "compress/model/ops/elementwise.h"
#include "compress/model/ops/linear.h"
#include "compress/model/ops/linear_attention.h"
#include "compress/model/ops/norm.h"
#include "compress/model/ops/rg_lru.h"
#include "compress/model/ops/rope.h"
#include "compress/model/ops/routing.h"
#include "compress/model/ops/rwkv.h"
#include "compress/model/ops/selective_scan.h"
#include "compress/model/ops/state_space.h"

namespace llmpress {

// What the columns of a value stand for.
enum class Axis {
  kHidden,   // channels of the residual stream
  kFfn,      // channels of an MLP
  kQuery,    // query heads times head_dim
  kKey,      // key heads
  kValue,    // value heads
  kMixed,    // query heads times value_dim: what attention gives
  kExperts,  // one column an expert
  kState,    // channels of a recurrent mixer
  kOther,
};

using ValueId = std::size_t;

struct ValueSpec {
  std::string name;
  std::size_t width = 0;
  Axis axis = Axis::kOther;

  bool operator==(const ValueSpec&) const = default;
};

using OpKind =
    std::variant<NormOp, LinearOp, SplitOp, JoinOp, RopeOp, AttentionOp,
                 LayerColumnsOp, ActivationOp, GateOp, ClampedGateOp, AddOp,
                 MultiplyOp, ScaleOp, PositionScaleOp, RouteOp, DispatchOp,
                 CombineOp, ConvolutionOp, StateSpaceOp, SelectiveScanOp,
                 DeltaRuleOp, LinearAttentionOp, RgLruOp, TokenShiftOp,
                 InterpolateOp, WkvOp>;

struct Operation {
  OpKind kind;
  std::vector<ValueId> in{}, out{};

  bool operator==(const Operation&) const = default;
};

// How a Linear's weight lies in the checkpoint where it is not a tensor
// `<name>.weight` [out, in] of its own.
struct LinearStorage {
  std::string tensor{};                // within the block, with its suffix
  std::optional<std::size_t> index{};  // of the expert, in a stack of them
  bool transposed = false;             // [in, out]
  std::size_t first_row = 0;           // of W in a tensor that holds several
  std::size_t row_step = 1;            // from one row of W to the next
  std::size_t rows = 0;                // of all of them
  std::string bias_tensor{};           // likewise; empty: `<name>.bias`

  bool operator==(const LinearStorage&) const = default;
};

enum class LinearRole {
  kPlain,
  kRouter,  // decides where tokens go: left alone unless it is named
};

// A Linear of a block. `name` is within the block: "self_attn.q_proj".
struct LinearSpec {
  std::string name;
  std::size_t out = 0, in = 0;
  bool bias = false;
  std::size_t stage = 0;  // derived: index into BlockSpec::stages
  std::size_t group = 0;  // derived: the expert whose rows it sees, or 0
  LinearRole role = LinearRole::kPlain;
  // Where it may lie instead of `<name>.weight`.
  std::optional<LinearStorage> storage{};

  bool operator==(const LinearSpec&) const = default;
};

struct NormSpec {
  std::string name;       // "input_layernorm"
  std::size_t width = 0;  // of the gain
  bool bias = false;
  float offset = 0;  // the gain is stored less this

  bool operator==(const NormSpec&) const = default;
};

// A tensor of a block that is neither a Linear nor a norm.
struct ParameterSpec {
  std::string name;  // within the block, in full: "self_attn.sinks"
  std::vector<std::size_t> shape{};
  std::vector<float> constant{};  // known beforehand, in no checkpoint

  bool operator==(const ParameterSpec&) const = default;
};

// Linears that read the same value, in the order in which they are compressed.
struct StageSpec {
  std::vector<std::size_t> linears;  // indices into BlockSpec::linears
  std::size_t in = 0;                // width of the shared input
  std::size_t groups = 1;            // experts of a routed input
  ValueId input = 0, stream = 0;     // live when the stage begins
  std::size_t first_op = 0;
};

// A place where diag(1/s) can leave the source and diag(s) enter the consumers
// without changing the function. The source is a norm's gain (and bias), or the
// rows (and bias) of a Linear whose outputs reach the consumers elementwise.
struct ScaleGroup {
  std::string source_norm;                   // "input_layernorm", or empty
  std::optional<std::size_t> source_linear;  // index into linears
  std::vector<std::size_t> consumers;        // indices into linears
};

// A value that travels between blocks beside the stream.
struct CarriedValue {
  ValueId value = 0;
  std::size_t channel = 0;  // of the model

  bool operator==(const CarriedValue&) const = default;
};

struct BlockSpec {
  std::vector<LinearSpec> linears;
  std::vector<NormSpec> norms;
  std::vector<ParameterSpec> parameters;
  std::vector<ValueSpec> values;  // values[0]: the residual stream coming in
  std::vector<Operation> operations;
  ValueId result = 0;  // the stream going out
  std::vector<CarriedValue> carried_in, carried_out;
  std::vector<CacheSlot> slots;  // what operations keep of a sequence
  // Derived by derive_facts().
  std::vector<StageSpec> stages;  // in execution order
  std::vector<ScaleGroup> scale_groups;
  std::vector<std::size_t> last_use;  // [values]: operation, or none
};

// Fills in what follows from the operations. Throws std::logic_error for a
// program that reads what was not written or whose widths do not fit: a bug of
// the family's file.
void derive_facts(BlockSpec& block);

// Whether both compute the same from the same weights.
bool same_program(const BlockSpec& a, const BlockSpec& b);

// The operation that writes the value; none for the stream coming in.
const Operation* producer(const BlockSpec& block, ValueId value);
std::vector<const Operation*> consumers(const BlockSpec& block, ValueId value);

}  // namespace llmpress
