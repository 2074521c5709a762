// Scales for keys and values in 8 bits, as compressed-tensors calibrates them
// (kv_cache_scheme, strategy tensor): of each attention module the largest
// magnitude that its keys, after the rotary embedding, and its values reach
// over the calibration tokens, over the largest number of the type:
//   fp8    s = max |x| / 448
//   int8   s = max |x| / 127.5
#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "compress/calibration/stage_plan.h"
#include "compress/model/architecture.h"
#include "compress/model/kv_rounding.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// By name within the block: "self_attn.k_scale".
using KvScales = std::map<std::string, float>;

// Nothing without such a stage. Throws Error(kInvalidArgument) if the
// checkpoint rounds its keys and values already, if no attention of `arch`
// keeps plain keys and values, or if `format` cannot say it.
void check_kv_scales(const StagePlan& plan, const Architecture& arch,
                     const Checkpoint& checkpoint, const std::string& format);

// Throws Error(kNumeric) if a range is not finite.
// The ranges of what ran on all ranks. Collective.
KvRanges widest(const KvRanges& own, const Ranks& ranks);

KvScales kv_scales(const QuantizeKvCacheStage& stage, const BlockSpec& block,
                   const KvRanges& ranges);
// As block `layer` of an unfinished run has them.
KvScales read_kv_scales(const TensorReader& reader, const Architecture& arch,
                        std::size_t layer);

// "keys and values in fp8, calibrated scales in 12 attention modules".
std::string describe_kv_scales(const QuantizeKvCacheStage& stage,
                               const Architecture& arch);
// config.json with the scheme in its quantization_config, where the writer of
// artifacts looks for it.
std::string with_kv_cache_scheme(const std::string& config_json,
                                 const QuantizeKvCacheStage& stage);

}  // namespace llmpress
