#include "compress/surgery/structured_shape.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/model/facts.h"
#include "compress/surgery/kept_layers.h"
#include "formats/checkpoints/artifact_writer.h"
#include "pruning/unit_selection.h"

namespace llmpress {
namespace {

using Json = nlohmann::ordered_json;

std::size_t merged_heads(const Architecture& arch, std::size_t kv_heads) {
  if (kv_heads >= 1 && arch.kv_heads % kv_heads == 0) return kv_heads;
  fail(ErrorCode::kInvalidArgument,
       "kv_heads: found {}, wanted a divisor of the model's {} key/value heads",
       kv_heads, arch.kv_heads);
}

// Each token goes to `top` experts, of the best groups where there are such.
void check_route(const RouteOp& route, std::size_t kept) {
  const auto refuse = [&](const std::string& why) {
    fail(ErrorCode::kInvalidArgument, "of its {} experts {} would stay: {}",
         route.experts, kept, why);
  };
  const std::size_t of_group = kept / route.groups;
  if (kept < 2) refuse("a mixture of one is a dense model");
  if (kept < route.top) {
    refuse(formatted("fewer than the {} that each token goes to", route.top));
  }
  if (route.kept_groups * of_group < route.top) {
    refuse(
        formatted("each token goes to {} of {} groups, which then have "
                  "fewer than the {} that it goes to",
                  route.kept_groups, route.groups, route.top));
  }
  if (route.group_rank == GroupRank::kTopTwoSum && of_group < 2) {
    refuse(
        formatted("its {} groups are ranked by their two best, so each "
                  "needs two",
                  route.groups));
  }
}

// `kept` units stay in each block. Throws Error(kUnsupported) for one whose units
// do not go one by one.
void check_block(const BlockSpec& block, const PruneConfig& config,
                 std::size_t kept) {
  switch (config.method) {
    case PruneMethod::kFfn:
      (void)ffn_units(block);
      break;
    case PruneMethod::kHeads:
      (void)head_units(block);
      break;
    case PruneMethod::kHidden:
      if (stream_facts(block).routed) {
        throw Error(ErrorCode::kUnsupported,
                    "a mixture of experts reads the residual stream");
      }
      break;
    case PruneMethod::kKvHeads:
      (void)attention_linears(block);
      break;
    case PruneMethod::kExperts:
      if (const auto units = expert_units(block)) {
        check_route(*units->route, kept);
      }
      return;
    case PruneMethod::kDepth:
    case PruneMethod::kMagnitude:
    case PruneMethod::kWanda:
    case PruneMethod::kSparseGpt:
      break;
  }
  if (!config.heal || config.method == PruneMethod::kDepth) return;
  for (const StreamStep& step : stream_steps(block)) {
    if (block.stages[step.last].linears.size() == 1) continue;
    throw Error(ErrorCode::kUnsupported,
                "what attention and MLP add to the stream at once cannot be "
                "refitted one by one; 'heal: false' works");
  }
}

const RouteOp& routing_of(const Architecture& arch) {
  const RouteOp* const route = first_route(arch);
  if (route != nullptr) return *route;
  throw Error(ErrorCode::kUnsupported, "has no experts");
}

// config.json must be able to say what is left.
void check_keys(const Architecture& arch, const PruneConfig& config) {
  const bool heads = config.method == PruneMethod::kHeads ||
                     config.method == PruneMethod::kKvHeads;
  if ((heads || config.method == PruneMethod::kHidden) &&
      !arch.keys.free_heads) {
    throw Error(ErrorCode::kUnsupported,
                "its config.json has no keys for heads that do not follow from "
                "the hidden size");
  }
  if (config.method == PruneMethod::kHidden &&
      (arch.final_norm_options.kind != NormKind::kRms ||
       !arch.position_embedding.empty() || !arch.embedding_norm.empty())) {
    throw Error(ErrorCode::kUnsupported,
                "channels of the residual stream can go where every norm of it "
                "is an RMS norm");
  }
}

// Which blocks go is not known yet: config.json must be able to lose any.
void check_depth(const std::string& config_json, const Architecture& arch,
                 const PruneStage& stage) {
  if (arch.kinds.size() == 1 && arch.layer_inputs.width == 0) return;
  for (std::size_t gone = 0; gone < arch.layers; ++gone) {
    const auto kept = complement(std::vector{gone}, arch.layers);
    try {
      (void)pruned_config(config_json, arch, stage.config, kept);
    } catch (const Error& e) {
      fail(e.code(), "{}: {}: {}", stage.position.to_string(), arch.model_type,
           e.what());
    }
  }
}

}  // namespace

UnitCount unit_count(const Architecture& arch, const PruneConfig& config) {
  const auto counted = [&](std::size_t units, std::size_t multiple_of) {
    return UnitCount{kept_count(units, config.sparsity, multiple_of), units};
  };
  switch (config.method) {
    case PruneMethod::kFfn:
      return counted(arch.ffn, config.multiple_of);
    case PruneMethod::kHeads:
      return counted(arch.kv_heads, 1);
    case PruneMethod::kHidden:
      return counted(arch.hidden, config.multiple_of);
    case PruneMethod::kDepth:
      return counted(arch.layers, 1);
    case PruneMethod::kKvHeads:
      return {merged_heads(arch, config.kv_heads), arch.kv_heads};
    case PruneMethod::kExperts:
      // As many of every group.
      return counted(routing_of(arch).experts, routing_of(arch).groups);
    case PruneMethod::kMagnitude:
    case PruneMethod::kWanda:
    case PruneMethod::kSparseGpt:
      break;
  }
  throw std::logic_error("unit_count: a method that removes no units");
}

std::string_view unit_name(PruneMethod method) {
  switch (method) {
    case PruneMethod::kFfn:
      return "FFN channels";
    case PruneMethod::kHeads:
    case PruneMethod::kKvHeads:
      return "key/value heads";
    case PruneMethod::kHidden:
      return "residual channels";
    case PruneMethod::kDepth:
      return "blocks";
    case PruneMethod::kExperts:
      return "experts";
    case PruneMethod::kMagnitude:
    case PruneMethod::kWanda:
    case PruneMethod::kSparseGpt:
      break;
  }
  return "weights";
}

void check_structured(const Architecture& arch, const PruneStage& stage) {
  const PruneConfig& config = stage.config;
  const auto refuse = [&](ErrorCode code, const std::string& why) {
    fail(code, "{}: {}", stage.position.to_string(), why);
  };
  if (config.method == PruneMethod::kKvHeads &&
      config.kv_grouping == KvGrouping::kCalibrated &&
      attention_linears(arch.block(0)).normed) {
    refuse(ErrorCode::kUnsupported,
           "kv_grouping 'calibrated' turns keys and queries against each "
           "other, which this model's norms of both undo; 'mean' works");
  }
  try {
    const std::size_t kept = unit_count(arch, config).kept;
    for (const BlockSpec& block : arch.kinds) {
      check_block(block, config, kept);
    }
    check_keys(arch, config);
  } catch (const Error& e) {
    refuse(e.code(), arch.model_type + ": " + e.what());
  }
}

std::string pruned_config(const std::string& config_json,
                          const Architecture& arch, const PruneConfig& config,
                          std::span<const std::size_t> kept_layers) {
  Json whole = Json::parse(config_json);
  whole.erase("quantization_config");
  // A wrapper keeps the decoder's sizes in an object of its own.
  Json& json =
      arch.config_object.empty() ? whole : whole.at(arch.config_object);
  const std::size_t kept = unit_count(arch, config).kept;
  std::vector<std::size_t> layers(kept_layers.begin(), kept_layers.end());
  switch (config.method) {
    case PruneMethod::kFfn:
      json[arch.keys.ffn] = kept;
      break;
    case PruneMethod::kHeads:
      json[arch.keys.heads] = kept * (arch.heads / arch.kv_heads);
      json["num_key_value_heads"] = kept;
      json["head_dim"] = arch.head_dim;
      break;
    case PruneMethod::kHidden:
      json[arch.keys.hidden] = kept;
      json["head_dim"] = arch.head_dim;
      break;
    case PruneMethod::kDepth:
      if (layers.empty()) {
        layers.resize(kept);
        std::iota(layers.begin(), layers.end(), std::size_t{0});
      }
      json = Json::parse(config_of_layers(json.dump(), arch, layers));
      check_kept_layers(arch, parse_architecture(whole.dump(), "config.json"),
                        layers);
      break;
    case PruneMethod::kKvHeads:
      json["num_key_value_heads"] = kept;
      break;
    case PruneMethod::kExperts:
      for (const std::string& key : arch.keys.experts) json[key] = kept;
      break;
    case PruneMethod::kMagnitude:
    case PruneMethod::kWanda:
    case PruneMethod::kSparseGpt:
      break;
  }
  return whole.dump(2);
}

std::string student_config(const std::string& config_json,
                           const Architecture& arch,
                           const StudentConfig& student) {
  if (!student.config.empty()) return read_file(student.config);
  if (student.every == 1) return config_json;
  std::vector<std::size_t> kept;
  for (std::size_t layer = 0; layer < arch.layers; layer += student.every) {
    kept.push_back(layer);
  }
  PruneConfig depth{.method = PruneMethod::kDepth};
  return pruned_config(config_json, arch, depth, kept);
}

Architecture planned_architecture(const StagePlan& plan,
                                  const std::string& config_json,
                                  const std::string& origin) {
  std::string config = config_json;
  Architecture arch = parse_architecture(config, origin);
  for (const Stage* stage : plan.transforms()) {
    if (const TrainStage* const train = training_of(*stage)) {
      config = student_config(config, arch, train->student);
      arch = parse_architecture(config, origin);
      continue;
    }
    const auto* prune = std::get_if<PruneStage>(stage);
    if (prune == nullptr) continue;
    check_structured(arch, *prune);
    if (prune->config.method == PruneMethod::kDepth) {
      check_depth(config, arch, *prune);
    }
    config = pruned_config(config, arch, prune->config);
    arch = parse_architecture(config, origin);
  }
  return arch;
}

}  // namespace llmpress
