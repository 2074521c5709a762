#include "compress/model/live_widths.h"

#include <algorithm>
#include <variant>

namespace llmpress {
namespace {

// [values]: how many experts see a token of the value; 1: it is not routed.
std::vector<std::size_t> copies_of_values(const BlockSpec& block) {
  std::vector<std::size_t> copies(block.values.size(), 1);
  std::size_t top = 1;
  for (const Operation& op : block.operations) {
    if (const auto* const route = std::get_if<RouteOp>(&op.kind)) {
      top = route->top;
    }
    std::size_t of_output = 1;
    if (std::holds_alternative<DispatchOp>(op.kind)) {
      of_output = top;
    } else if (!std::holds_alternative<CombineOp>(op.kind)) {
      for (const ValueId v : op.in) of_output = std::max(of_output, copies[v]);
    }
    for (const ValueId v : op.out) copies[v] = of_output;
  }
  return copies;
}

class Liveness {
 public:
  explicit Liveness(const BlockSpec& block)
      : block_(block),
        copies_(copies_of_values(block)),
        live_(block.values.size()) {
    live_[0] = true;
    for (const CarriedValue& c : block.carried_in) live_[c.value] = true;
  }

  LiveWidths walk() {
    LiveWidths widths;
    std::size_t most = now(), stage = 0;
    for (std::size_t i = 0; i < block_.operations.size(); ++i) {
      if (stage < block_.stages.size() && block_.stages[stage].first_op == i) {
        widths.at_stage.push_back(now());
        widths.towards.push_back(std::max(most, now()));
        most = now();
        ++stage;
      }
      most = std::max(most, run(i));
    }
    widths.at_stage.push_back(now());
    widths.towards.push_back(most);
    return widths;
  }

 private:
  std::size_t now() const {
    std::size_t numbers = 0;
    for (std::size_t v = 0; v < live_.size(); ++v) {
      if (live_[v]) numbers += block_.values[v].width * copies_[v];
    }
    return numbers;
  }

  // The most while operation `i` runs.
  std::size_t run(std::size_t i) {
    const Operation& op = block_.operations[i];
    for (const ValueId v : op.out) live_[v] = true;
    const std::size_t during = now();
    for (const ValueId v : op.in) {
      if (block_.last_use[v] == i) live_[v] = false;
    }
    return during;
  }

  const BlockSpec& block_;
  std::vector<std::size_t> copies_;
  std::vector<bool> live_;
};

}  // namespace

LiveWidths live_widths(const BlockSpec& block) {
  return Liveness(block).walk();
}

}  // namespace llmpress
