#include "compress/pipeline/run/kv_scales.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "compress/model/facts.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

[[noreturn]] void refuse(const QuantizeKvCacheStage& stage,
                         const std::string& why) {
  fail(ErrorCode::kInvalidArgument, "{}: quantize_kv_cache: {}",
       stage.position.to_string(), why);
}

double largest_number(KvScaleType type) {
  return type == KvScaleType::kFp8 ? 448 : 127.5;
}

float scale_of(float largest, const QuantizeKvCacheStage& stage,
               const std::string& name) {
  if (!std::isfinite(largest)) {
    fail(ErrorCode::kNumeric, "'{}': keys or values are not finite", name);
  }
  if (largest == 0) return 1;  // nothing to round
  return static_cast<float>(static_cast<double>(largest) /
                            largest_number(stage.type));
}

std::size_t count_modules(const Architecture& arch) {
  std::size_t count = 0;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    count += key_value_modules(arch.block(layer)).size();
  }
  return count;
}

}  // namespace

void check_kv_scales(const StagePlan& plan, const Architecture& arch,
                     const Checkpoint& checkpoint, const std::string& format) {
  const QuantizeKvCacheStage* stage = plan.kv_cache();
  if (stage == nullptr) return;
  if (format != "compressed-tensors" && format != "hdf5") {
    refuse(*stage, formatted("output format '{}' cannot hold the scales; "
                             "write compressed-tensors",
                             format));
  }
  if (count_modules(arch) == 0) {
    refuse(*stage, "no block of the model keeps keys and values");
  }
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    const auto modules = key_value_modules(arch.block(layer));
    if (!modules.empty() && checkpoint.kv_scheme(arch.block_name(layer))) {
      refuse(*stage, "the checkpoint has a kv_cache_scheme already");
    }
    for (const KeyValueModule& module : modules) {
      if (!module.latent && !module.shared) continue;
      refuse(*stage,
             formatted("'{}.{}' {}", arch.block_name(layer), module.name,
                       module.latent ? "rebuilds keys and values from latents, "
                                       "which is what loaders would round"
                                     : "has the keys and values of another "
                                       "layer, rounded there"));
    }
  }
}

KvRanges widest(const KvRanges& own, const Ranks& ranks) {
  struct Entry {
    std::size_t slot;
    KvRange range;
  };
  std::vector<Entry> entries;
  for (const auto& [slot, range] : own) entries.push_back({slot, range});
  KvRanges all;
  for (const std::string& bytes : ranks.gather(bytes_of(std::span(entries)))) {
    for (const Entry& entry : values_of<Entry>(bytes)) {
      KvRange& range = all[entry.slot];
      range.keys = std::max(range.keys, entry.range.keys);
      range.values = std::max(range.values, entry.range.values);
    }
  }
  return all;
}

KvScales kv_scales(const QuantizeKvCacheStage& stage, const BlockSpec& block,
                   const KvRanges& ranges) {
  KvScales scales;
  for (const KeyValueModule& module : key_value_modules(block)) {
    const KvRange& range = ranges.at(module.slot);
    const std::string key = module.name + ".k_scale",
                      value = module.name + ".v_scale";
    scales[key] = scale_of(range.keys, stage, key);
    scales[value] = scale_of(range.values, stage, value);
  }
  return scales;
}

KvScales read_kv_scales(const TensorReader& reader, const Architecture& arch,
                        std::size_t layer) {
  KvScales scales;
  for (const KeyValueModule& module : key_value_modules(arch.block(layer))) {
    for (const char* side : {".k_scale", ".v_scale"}) {
      const std::string name = module.name + side;
      const std::string full = arch.block_name(layer) + "." + name;
      if (reader.find(full) != nullptr) {
        scales[name] = read_vector(reader, full, 1).front();
      }
    }
  }
  return scales;
}

std::string describe_kv_scales(const QuantizeKvCacheStage& stage,
                               const Architecture& arch) {
  return formatted(
      "keys and values in {}, calibrated scales in {} attention modules",
      stage.type == KvScaleType::kFp8 ? "fp8" : "int8", count_modules(arch));
}

std::string with_kv_cache_scheme(const std::string& config_json,
                                 const QuantizeKvCacheStage& stage) {
  auto config = nlohmann::ordered_json::parse(config_json);
  config["quantization_config"]["kv_cache_scheme"] = {
      {"num_bits", 8},
      {"type", stage.type == KvScaleType::kFp8 ? "float" : "int"},
      {"strategy", "tensor"},
      {"dynamic", false},
      {"symmetric", true}};
  return config.dump(2) + "\n";
}

}  // namespace llmpress
