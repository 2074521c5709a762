#include "compress/model/program.h"

#include <algorithm>
#include <stdexcept>

namespace llmpress {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

[[noreturn]] void wrong(const std::string& what) {
  throw std::logic_error("block program: " + what);
}

const LinearOp* as_linear(const Operation& op) {
  return std::get_if<LinearOp>(&op.kind);
}

// A residual stream version: the block's input, or a sum with one of them.
std::vector<bool> stream_versions(const BlockSpec& block) {
  std::vector<bool> stream(block.values.size(), false);
  stream[0] = true;
  for (const Operation& op : block.operations) {
    const bool passes = std::holds_alternative<AddOp>(op.kind) ||
                        std::holds_alternative<ScaleOp>(op.kind);
    if (passes && stream[op.in[0]]) stream[op.out[0]] = true;
  }
  return stream;
}

class Deriver {
 public:
  explicit Deriver(BlockSpec& block) : block_(block) {}

  void run() {
    check_flow();
    find_stages();
    find_streams();
    find_scale_groups();
  }

 private:
  void check_flow() {
    std::vector<bool> written(block_.values.size(), false);
    written[0] = true;
    for (const CarriedValue& c : block_.carried_in) written.at(c.value) = true;
    block_.last_use.assign(block_.values.size(), kNone);
    for (std::size_t i = 0; i < block_.operations.size(); ++i) {
      const Operation& op = block_.operations[i];
      for (const ValueId v : op.in) {
        if (!written.at(v)) wrong(block_.values[v].name + " is not written");
        block_.last_use[v] = i;
      }
      for (const ValueId v : op.out) {
        if (written.at(v)) wrong(block_.values[v].name + " is written twice");
        written[v] = true;
      }
      check_widths(op);
    }
    if (!written.at(block_.result)) wrong("the result is not written");
    block_.last_use[block_.result] = block_.operations.size();
    for (const CarriedValue& c : block_.carried_out) {
      if (!written.at(c.value)) wrong("a carried value is not written");
      block_.last_use[c.value] = block_.operations.size();
    }
  }

  void check_widths(const Operation& op) const {
    const LinearOp* const linear = as_linear(op);
    if (linear == nullptr) return;
    for (const std::size_t l : linear->linears) {
      const LinearSpec& spec = block_.linears.at(l);
      if (spec.in != block_.values[op.in[0]].width ||
          spec.out != block_.values[op.out[0]].width) {
        wrong(spec.name + " does not fit its values");
      }
    }
  }

  void find_stages() {
    block_.stages.clear();
    for (std::size_t i = 0; i < block_.operations.size(); ++i) {
      const LinearOp* const linear = as_linear(block_.operations[i]);
      if (linear == nullptr) continue;
      const ValueId input = block_.operations[i].in[0];
      auto stage = std::ranges::find(block_.stages, input, &StageSpec::input);
      if (stage == block_.stages.end()) {
        block_.stages.push_back({.linears = {},
                                 .in = block_.values[input].width,
                                 .groups = linear->linears.size(),
                                 .input = input,
                                 .first_op = i});
        stage = block_.stages.end() - 1;
      }
      for (std::size_t g = 0; g < linear->linears.size(); ++g) {
        LinearSpec& spec = block_.linears[linear->linears[g]];
        spec.stage = static_cast<std::size_t>(stage - block_.stages.begin());
        spec.group = g;
        stage->linears.push_back(linear->linears[g]);
      }
    }
  }

  void find_streams() {
    const std::vector<bool> stream = stream_versions(block_);
    for (StageSpec& stage : block_.stages) {
      for (std::size_t i = 0; i < stage.first_op; ++i) {
        for (const ValueId v : block_.operations[i].out) {
          if (stream[v]) stage.stream = v;
        }
      }
    }
  }

  // The Linears that read a value, itself or dealt out to experts; nothing if
  // something else reads it too.
  std::vector<std::size_t> linear_readers(ValueId value) const {
    std::vector<std::size_t> found;
    for (const Operation* op : consumers(block_, value)) {
      if (const LinearOp* const linear = as_linear(*op)) {
        found.insert(found.end(), linear->linears.begin(),
                     linear->linears.end());
        continue;
      }
      if (!std::holds_alternative<DispatchOp>(op->kind)) return {};
      const auto routed = linear_readers(op->out[0]);
      if (routed.empty()) return {};
      found.insert(found.end(), routed.begin(), routed.end());
    }
    return found;
  }

  // The Linears that write a value, one an expert for a routed one.
  std::vector<std::size_t> writers(ValueId value) const {
    const Operation* const op = producer(block_, value);
    const LinearOp* const linear = op == nullptr ? nullptr : as_linear(*op);
    return linear == nullptr ? std::vector<std::size_t>{} : linear->linears;
  }

  // An expert's rows reach its own consumers alone.
  void add_between(ValueId source, ValueId product) {
    if (consumers(block_, source).size() != 1) return;
    const auto from = writers(source);
    if (from.empty()) return;
    std::vector<std::vector<std::size_t>> reached(from.size());
    for (const std::size_t c : linear_readers(product)) {
      reached.at(from.size() == 1 ? 0 : block_.linears[c].group).push_back(c);
    }
    for (std::size_t g = 0; g < from.size(); ++g) {
      if (reached[g].empty()) continue;
      block_.scale_groups.push_back({.source_norm = "",
                                     .source_linear = from[g],
                                     .consumers = std::move(reached[g])});
    }
  }

  void find_scale_groups() {
    block_.scale_groups.clear();
    for (const Operation& op : block_.operations) {
      if (const auto* norm = std::get_if<NormOp>(&op.kind)) {
        if (!norm->norm || norm->unit != 0) continue;
        const auto readers = linear_readers(op.out[0]);
        if (readers.empty()) continue;
        block_.scale_groups.push_back(
            {.source_norm = block_.norms[*norm->norm].name,
             .source_linear = std::nullopt,
             .consumers = readers});
      } else if (const auto* a = std::get_if<AttentionOp>(&op.kind)) {
        // With grouped queries one row of v reaches several columns of o, which
        // would have to share a scale.
        if (a->heads == a->kv_heads) add_between(op.in[2], op.out[0]);
      } else if (std::holds_alternative<GateOp>(op.kind)) {
        add_between(op.in[1], op.out[0]);
      }
    }
  }

  BlockSpec& block_;
};

}  // namespace

void derive_facts(BlockSpec& block) { Deriver(block).run(); }

bool same_program(const BlockSpec& a, const BlockSpec& b) {
  return a.operations == b.operations && a.values == b.values &&
         a.result == b.result && a.linears == b.linears && a.norms == b.norms &&
         a.parameters == b.parameters && a.slots == b.slots &&
         a.carried_in == b.carried_in && a.carried_out == b.carried_out;
}

const Operation* producer(const BlockSpec& block, ValueId value) {
  for (const Operation& op : block.operations) {
    if (std::ranges::find(op.out, value) != op.out.end()) return &op;
  }
  return nullptr;
}

std::vector<const Operation*> consumers(const BlockSpec& block, ValueId value) {
  std::vector<const Operation*> found;
  for (const Operation& op : block.operations) {
    if (std::ranges::find(op.in, value) != op.in.end()) found.push_back(&op);
  }
  return found;
}

}  // namespace llmpress
