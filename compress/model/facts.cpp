#include "compress/model/facts.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "compress/core/error.h"

namespace llmpress {
namespace {

[[noreturn]] void unsupported(const std::string& why) {
  throw Error(ErrorCode::kUnsupported, why);
}

const LinearOp* as_linear(const Operation* op) {
  return op == nullptr ? nullptr : std::get_if<LinearOp>(&op->kind);
}

// Which rows of which Linear give the columns of a value.
struct Source {
  std::size_t linear = 0;
  std::vector<std::size_t> rows{};  // [columns]
  bool normed = false;
};

std::vector<std::size_t> counted(std::size_t count) {
  std::vector<std::size_t> all(count);
  std::iota(all.begin(), all.end(), std::size_t{0});
  return all;
}

// The rows of piece `piece` of a split among those of the whole.
std::vector<std::size_t> piece_rows(const SplitOp& split, std::size_t piece,
                                    const std::vector<std::size_t>& rows) {
  const std::size_t group = rows.size() / split.groups;
  const std::size_t before =
      std::accumulate(split.widths.begin(),
                      split.widths.begin() + static_cast<std::ptrdiff_t>(piece),
                      std::size_t{0});
  std::vector<std::size_t> found;
  for (std::size_t g = 0; g < split.groups; ++g) {
    for (std::size_t c = 0; c < split.widths[piece]; ++c) {
      found.push_back(rows[g * group + before + c]);
    }
  }
  return found;
}

// Back through what treats columns one by one or a head at a time.
std::optional<Source> trace(const BlockSpec& block, ValueId value) {
  const Operation* const op = producer(block, value);
  if (op == nullptr) return std::nullopt;
  if (const LinearOp* const linear = as_linear(op)) {
    if (linear->linears.size() != 1) return std::nullopt;
    return Source{.linear = linear->linears[0],
                  .rows = counted(block.values[value].width)};
  }
  const bool per_head = std::holds_alternative<NormOp>(op->kind) &&
                        std::get<NormOp>(op->kind).unit != 0;
  const auto* const split = std::get_if<SplitOp>(&op->kind);
  const auto* const scale = std::get_if<ScaleOp>(&op->kind);
  const bool passes = per_head || split != nullptr ||
                      std::holds_alternative<RopeOp>(op->kind) ||
                      std::holds_alternative<ActivationOp>(op->kind) ||
                      std::holds_alternative<PositionScaleOp>(op->kind) ||
                      (scale != nullptr && !scale->parameter);
  if (!passes) return std::nullopt;
  std::optional<Source> source = trace(block, op->in[0]);
  if (!source) return std::nullopt;
  source->normed |= per_head;
  if (split != nullptr) {
    const auto piece = static_cast<std::size_t>(
        std::ranges::find(op->out, value) - op->out.begin());
    source->rows = piece_rows(*split, piece, source->rows);
  }
  return source;
}

// The one Linear that reads a value, and nothing else does.
std::optional<std::size_t> only_reader(const BlockSpec& block, ValueId value) {
  const auto readers = consumers(block, value);
  if (readers.size() != 1) return std::nullopt;
  const LinearOp* const linear = as_linear(readers[0]);
  if (linear == nullptr || linear->linears.size() != 1) return std::nullopt;
  return linear->linears[0];
}

UnitPart rows_part(const Source& source, std::size_t width) {
  return {.linear = source.linear,
          .axis = WeightAxis::kRows,
          .width = width,
          .index = source.rows};
}

UnitPart columns_part(std::size_t linear, std::size_t columns,
                      std::size_t width) {
  return {.linear = linear,
          .axis = WeightAxis::kColumns,
          .width = width,
          .index = counted(columns)};
}

// Versions of the stream, in the order in which they arise.
std::vector<ValueId> stream_values(const BlockSpec& block) {
  std::vector<ValueId> versions{0};
  for (const Operation& op : block.operations) {
    if (std::holds_alternative<AddOp>(op.kind) && op.in[0] == versions.back()) {
      versions.push_back(op.out[0]);
    }
  }
  if (versions.back() != block.result) {
    unsupported("the residual stream is not a sum of what Linears add to it");
  }
  return versions;
}

const Operation& only_attention(const BlockSpec& block) {
  const Operation* found = nullptr;
  for (const Operation& op : block.operations) {
    if (!std::holds_alternative<AttentionOp>(op.kind)) continue;
    if (found != nullptr) unsupported("a block has several attentions");
    found = &op;
  }
  if (found == nullptr) unsupported("a block has no attention");
  return *found;
}

}  // namespace

namespace {

void append(const LinearOp& op, std::vector<std::size_t>& linears) {
  linears.insert(linears.end(), op.linears.begin(), op.linears.end());
}

// The Linears whose outputs, each times a number of its token's, add up to
// `value`.
void add_writers(const BlockSpec& block, ValueId value, StreamFacts& facts) {
  const Operation* const op = producer(block, value);
  if (const LinearOp* linear = as_linear(op)) {
    return append(*linear, facts.writers);
  }
  if (op != nullptr && std::holds_alternative<CombineOp>(op->kind)) {
    facts.routed = true;
    return add_writers(block, op->in[0], facts);
  }
  if (op != nullptr && std::holds_alternative<AddOp>(op->kind)) {
    add_writers(block, op->in[0], facts);
    return add_writers(block, op->in[1], facts);
  }
  const bool by_token = op != nullptr &&
                        std::holds_alternative<MultiplyOp>(op->kind) &&
                        block.values[op->in[1]].width == 1;
  if (by_token) return add_writers(block, op->in[0], facts);
  const auto* const scale =
      op == nullptr ? nullptr : std::get_if<ScaleOp>(&op->kind);
  if (scale != nullptr && !scale->parameter && std::isinf(scale->limit)) {
    return add_writers(block, op->in[0], facts);
  }
  unsupported(
      "what is added to the residual stream is not a Linear's output as it is");
}

// The Linears that read `value`, experts among them.
void add_readers(const BlockSpec& block, ValueId value, StreamFacts& facts,
                 std::vector<std::size_t>& linears) {
  for (const Operation* use : consumers(block, value)) {
    if (const LinearOp* linear = as_linear(use)) {
      append(*linear, linears);
    } else if (std::holds_alternative<DispatchOp>(use->kind)) {
      facts.routed = true;
      add_readers(block, use->out[0], facts, linears);
    } else {
      unsupported("a norm of the residual stream feeds more than Linears");
    }
  }
}

}  // namespace

StreamFacts stream_facts(const BlockSpec& block) {
  StreamFacts facts;
  for (const ValueId version : stream_values(block)) {
    for (const Operation* op : consumers(block, version)) {
      if (std::holds_alternative<AddOp>(op->kind) && op->in[0] == version) {
        add_writers(block, op->in[1], facts);
        continue;
      }
      const auto* const norm = std::get_if<NormOp>(&op->kind);
      if (norm == nullptr || !norm->norm || norm->unit != 0) {
        unsupported("the residual stream is read without a norm before it");
      }
      StreamReader reader{.norm = *norm->norm};
      add_readers(block, op->out[0], facts, reader.linears);
      if (reader.linears.empty()) continue;
      reader.stage = block.linears[reader.linears[0]].stage;
      facts.readers.push_back(std::move(reader));
    }
  }
  std::ranges::sort(facts.readers, {}, &StreamReader::stage);
  return facts;
}

std::vector<StreamStep> stream_steps(const BlockSpec& block) {
  std::vector<StreamStep> steps;
  std::size_t first = 0;
  for (std::size_t s = 0; s < block.stages.size(); ++s) {
    const ValueId next = s + 1 == block.stages.size()
                             ? block.result
                             : block.stages[s + 1].stream;
    if (next == block.stages[first].stream) continue;
    steps.push_back({first, s});
    first = s + 1;
  }
  return steps;
}

BlockUnits ffn_units(const BlockSpec& block) {
  std::optional<BlockUnits> found;
  for (const Operation& op : block.operations) {
    const bool gate = std::holds_alternative<GateOp>(op.kind) ||
                      std::holds_alternative<ClampedGateOp>(op.kind);
    if (!gate && !std::holds_alternative<ActivationOp>(op.kind)) continue;
    if (block.values[op.out[0]].axis != Axis::kFfn) continue;
    const auto down = only_reader(block, op.out[0]);
    BlockUnits units{.count = block.values[op.out[0]].width};
    for (const ValueId in : op.in) {
      const auto source = trace(block, in);
      if (!source) unsupported("the channels of a mixture of experts");
      units.parts.push_back(rows_part(*source, 1));
    }
    if (!down) unsupported("an MLP's channels go to more than one Linear");
    units.parts.push_back(columns_part(*down, units.count, 1));
    if (found) unsupported("a block has several MLPs");
    found = std::move(units);
  }
  if (!found) unsupported("a block has no dense MLP");
  return *found;
}

BlockUnits head_units(const BlockSpec& block) {
  const Operation& op = only_attention(block);
  const auto& attention = std::get<AttentionOp>(op.kind);
  const std::size_t shared = attention.heads / attention.kv_heads;
  const auto q = trace(block, op.in[0]), k = trace(block, op.in[1]),
             v = trace(block, op.in[2]);
  const auto o = only_reader(block, op.out[0]);
  if (!q || !k || !v || !o) {
    unsupported("queries, keys and values are not rows of Linears");
  }
  if (attention.sinks || attention.slopes) {
    unsupported("each head has parameters of its own");
  }
  return {.count = attention.kv_heads,
          .parts = {rows_part(*q, shared * attention.head_dim),
                    rows_part(*k, attention.head_dim),
                    rows_part(*v, attention.value_dim),
                    columns_part(*o, block.linears[*o].in,
                                 shared * attention.value_dim)}};
}

std::optional<ExpertUnits> expert_units(const BlockSpec& block) {
  std::optional<ExpertUnits> units;
  std::vector<bool> routed(block.values.size(), false);
  for (const Operation& op : block.operations) {
    if (const auto* const route = std::get_if<RouteOp>(&op.kind)) {
      const LinearOp* const router = as_linear(producer(block, op.in[0]));
      if (units || router == nullptr) {
        unsupported("a block's experts are not chosen by one Linear");
      }
      units = ExpertUnits{.route = route, .router = router->linears[0]};
      units->linears.resize(route->experts);
      continue;
    }
    const bool inside = std::ranges::any_of(
        op.in, [&](ValueId value) { return routed[value]; });
    if (const auto* const combine = std::get_if<CombineOp>(&op.kind)) {
      if (as_linear(producer(block, op.in[0])) == nullptr) {
        unsupported("the experts of a block do not end in Linears");
      }
      units->weighed = combine->weighed;
      continue;
    }
    if (!inside && !std::holds_alternative<DispatchOp>(op.kind)) continue;
    for (const ValueId value : op.out) routed[value] = true;
    const LinearOp* const linear = as_linear(&op);
    for (std::size_t e = 0; linear != nullptr && e < units->linears.size();
         ++e) {
      units->linears[e].push_back(linear->linears.at(e));
    }
  }
  return units;
}

const RouteOp* first_route(const Architecture& arch) {
  for (const BlockSpec& block : arch.kinds) {
    for (const Operation& op : block.operations) {
      const auto* const route = std::get_if<RouteOp>(&op.kind);
      if (route != nullptr) return route;
    }
  }
  return nullptr;
}

AttentionLinears attention_linears(const BlockSpec& block) {
  const Operation& op = only_attention(block);
  const auto q = trace(block, op.in[0]), k = trace(block, op.in[1]),
             v = trace(block, op.in[2]);
  const auto o = only_reader(block, op.out[0]);
  if (!q || !k || !v || !o || q->linear == k->linear ||
      k->linear == v->linear) {
    unsupported("queries, keys and values are not Linears of their own");
  }
  return {.attention = &std::get<AttentionOp>(op.kind),
          .q = q->linear,
          .k = k->linear,
          .v = v->linear,
          .o = *o,
          .normed = q->normed || k->normed};
}

std::vector<ValuePath> value_paths(const BlockSpec& block) {
  std::vector<ValuePath> paths;
  for (const Operation& op : block.operations) {
    const auto* const attention = std::get_if<AttentionOp>(&op.kind);
    if (attention == nullptr) continue;
    const Operation* const from = producer(block, op.in[2]);
    const bool direct =
        as_linear(from) != nullptr ||
        (from != nullptr && std::holds_alternative<SplitOp>(from->kind));
    const auto v = trace(block, op.in[2]);
    const auto o = only_reader(block, op.out[0]);
    if (!direct || !v || !o || consumers(block, op.in[2]).size() != 1) continue;
    paths.push_back(
        {.v = rows_part(*v, attention->value_dim),
         .o = columns_part(*o, block.linears[*o].in, attention->value_dim)});
  }
  return paths;
}

namespace {

// The Linear that reads what `op` gives, whatever lies between.
const LinearSpec* linear_behind(const BlockSpec& block, const Operation& op) {
  for (const ValueId v : op.out) {
    for (const Operation* next : consumers(block, v)) {
      const auto* linear = std::get_if<LinearOp>(&next->kind);
      if (linear != nullptr) return &block.linears[linear->linears.front()];
      if (const LinearSpec* found = linear_behind(block, *next)) return found;
    }
  }
  return nullptr;
}

}  // namespace

std::vector<KeyValueModule> key_value_modules(const BlockSpec& block) {
  std::vector<KeyValueModule> modules;
  for (const Operation& op : block.operations) {
    const auto* attention = std::get_if<AttentionOp>(&op.kind);
    if (attention == nullptr) continue;
    const LinearSpec* out = linear_behind(block, op);
    if (out == nullptr) continue;
    modules.push_back({.name = out->name.substr(0, out->name.rfind('.')),
                       .slot = attention->slot,
                       .latent = attention->head_dim != attention->value_dim,
                       .shared = attention->shared_layer.has_value()});
  }
  return modules;
}

}  // namespace llmpress
