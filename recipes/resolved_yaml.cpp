#include <string>
#include <variant>

#include "compress/core/formatted.h"
#include "quantizers/method.h"
#include "recipes/recipe_parser.h"
#include "recipes/schemes.h"
#include "recipes/settings_section.h"
#include "recipes/train_section.h"
#include "recipes/words.h"
#include "recipes/yaml_writer.h"

namespace llmpress {
namespace {

std::string block_text(const WeightScheme& scheme) {
  return formatted("[{}, {}]", scheme.block_rows, scheme.block_cols);
}

void write_weights(YamlWriter& out, const WeightScheme& scheme) {
  out.open("weights");
  out.word("type", facts_of(scheme).name);
  switch (scheme.type) {
    case WeightType::kInt:
      out.count("bits", static_cast<std::uint64_t>(scheme.bits));
      out.word("group_size", std::to_string(scheme.group_size));
      out.boolean("symmetric", scheme.symmetric);
      out.word("range", name_of<RangeSearch>(kRangeSearchWords, scheme.range));
      if (scheme.range == RangeSearch::kMse) {
        out.number("mse_norm", scheme.mse_norm);
      }
      out.word("scale_dtype",
               name_of<DType>(kFloatDTypeWords, scheme.scale_dtype));
      break;
    case WeightType::kFp8E4M3:
    case WeightType::kFp8E5M2:
      if (scheme.block_rows > 0) {
        out.word("block_size", block_text(scheme));
      } else {
        out.word("group_size", std::to_string(scheme.group_size));
      }
      out.word("scale_dtype",
               name_of<DType>(kFloatDTypeWords, scheme.scale_dtype));
      break;
    case WeightType::kNf4:
    case WeightType::kFp4:
      out.word("block_size", std::to_string(scheme.group_size));
      out.boolean("double_quant", scheme.double_quant);
      break;
    case WeightType::kMxfp4:
    case WeightType::kNvfp4:
    case WeightType::kFloat:
    case WeightType::kGgml:
      break;
  }
  out.close();
}

void write_input(YamlWriter& out, const ActivationQuant& input) {
  out.open("input");
  out.word("type", name_of<ActivationQuant::Kind>(kInputTypeWords, input.kind));
  if (input.kind != ActivationQuant::Kind::kNone) {
    out.count("bits", static_cast<std::uint64_t>(input.bits));
    out.word("range",
             name_of<ActivationQuant::Range>(kInputRangeWords, input.range));
    if (input.range == ActivationQuant::Range::kGroup) {
      out.count("group_size", input.group_size);
    }
    out.boolean("symmetric", input.symmetric);
  }
  out.close();
}

void write_selection(YamlWriter& out, const LayerSelection& layers) {
  out.texts("targets", layers.targets);
  out.texts("ignore", layers.ignore);
}

void write_body(YamlWriter& out, const QuantizeStage& stage) {
  const QuantizeConfig& config = stage.config;
  const QuantizerMethod& method = method_of(config);
  const QuantizerMethod& rounding = rounding_method(config);
  out.word("method", config.method);
  if (!stage.scheme.empty()) out.word("scheme", stage.scheme);
  write_weights(out, config.weights);
  write_input(out, config.input);
  if (method.has_section()) {
    out.open(method.name);
    write_settings(out, method.settings, config);
    out.close();
  }
  if (method.delegates()) out.word("solver", config.solver);
  if (rounding.settings_in_stage) {
    write_settings(out, rounding.settings, config);
  }
  if (!stage.importance.empty()) {
    out.text("importance", stage.importance.string());
  }
  if (stage.target_bits) out.number("target_bits", *stage.target_bits);
  if (stage.target_bytes) out.count("target_bytes", *stage.target_bytes);
  write_selection(out, stage.layers);
}

std::string pattern_text(const PruneConfig& config) {
  return std::to_string(config.keep) + ":" + std::to_string(config.of);
}

void write_body(YamlWriter& out, const PruneStage& stage) {
  const PruneConfig& config = stage.config;
  const PruneMethodFacts& method = facts_of(config.method);
  out.word("method", method.name);
  if (config.method != PruneMethod::kKvHeads) {
    out.number("sparsity", config.sparsity);
  }
  if (config.patterned()) {
    out.text("pattern", pattern_text(config));
  } else if (method.single_weights) {
    out.word("pattern", "unstructured");
  }
  write_settings(out, prune_settings(), config);
  if (method.single_weights) write_selection(out, stage.layers);
}

void write_body(YamlWriter& out, const MergeLoraStage& stage) {
  out.text("adapter", stage.adapter.string());
  out.number("scale", stage.scale);
}

void write_body(YamlWriter& out, const SmoothStage& stage) {
  out.word("method", stage.config.method);
  write_settings(out, method_of(stage.config).settings, stage.config);
  if (stage.weights) write_weights(out, *stage.weights);
}

void write_body(YamlWriter& out, const RotateStage& stage) {
  out.count("seed", stage.seed);
  out.boolean("online", stage.online);
}

void write_body(YamlWriter& out, const InjectOutliersStage& stage) {
  out.number("factor", stage.factor);
  out.count("channels", stage.channels);
}

void write_body(YamlWriter& out, const QuantizeKvCacheStage& stage) {
  out.word("type", name_of<KvScaleType>(kKvScaleTypeWords, stage.type));
}

void write_stages(YamlWriter& out, const std::vector<Stage>& stages) {
  if (stages.empty()) {
    out.word("stages", "[]");
    return;
  }
  out.open("stages");
  for (const Stage& stage : stages) {
    out.open_entry();
    out.open(stage_name(stage));
    std::visit([&](const auto& body) { write_body(out, body); }, stage);
    out.close();
    out.close_entry();
  }
  out.close();
}

void write_output(YamlWriter& out, const OutputConfig& output) {
  out.open("output");
  out.text("path", output.path.string());
  out.word("format", output.format);
  out.count("max_shard_size", output.max_shard_size);
  out.word("incompatible",
           name_of<Incompatible>(kIncompatibleWords, output.incompatible));
  out.close();
}

void write_calibration(YamlWriter& out, const CalibrationConfig& config) {
  out.open("calibration");
  out.text("text", config.text.string());
  out.count("samples", config.samples);
  out.count("sequence_length", config.sequence_length);
  out.word("sampling", name_of<Sampling>(kSamplingWords, config.sampling));
  out.count("seed", config.seed);
  // Only where they say something else: most models have no experts.
  const CalibrationConfig defaults;
  if (config.experts != defaults.experts) {
    out.word("experts",
             name_of<ExpertPolicy>(kExpertPolicyWords, config.experts));
  }
  if (config.expert_min_tokens != defaults.expert_min_tokens) {
    out.count("expert_min_tokens", config.expert_min_tokens);
  }
  out.close();
}

void write_evaluate(YamlWriter& out, const EvaluateConfig& config) {
  out.open("evaluate");
  out.text("text", config.text.string());
  out.count("context", config.context);
  out.word("protocol", name_of<Protocol>(kProtocolWords, config.protocol));
  if (config.protocol == Protocol::kStrided) {
    out.count("stride", config.stride);
  }
  out.count("max_windows", config.max_windows);
  out.open("kv_cache");
  out.word("type", name_of<KvCacheType>(kKvCacheWords, config.kv_cache));
  out.boolean("rotate_keys", config.rotate_keys);
  out.close();
  out.word("activations", name_of<EvaluatedActivations>(kActivationsWords,
                                                        config.activations));
  out.close();
}

void write_variants(YamlWriter& out, const std::vector<Variant>& variants) {
  out.open("variants");
  for (const Variant& variant : variants) {
    out.open_entry();
    out.text("name", variant.name);
    write_stages(out, variant.stages);
    if (variant.output) write_output(out, *variant.output);
    out.close_entry();
  }
  out.close();
}

}  // namespace

std::string resolved_yaml(const Recipe& recipe) {
  YamlWriter out;
  if (!recipe.name.empty()) out.text("name", recipe.name);
  if (!recipe.description.empty()) {
    out.text("description", recipe.description);
  }
  if (!recipe.model.empty()) out.text("model", recipe.model.string());
  if (recipe.calibration) write_calibration(out, *recipe.calibration);
  write_stages(out, recipe.stages);
  if (!recipe.variants.empty()) write_variants(out, recipe.variants);
  if (recipe.output) write_output(out, *recipe.output);
  if (recipe.evaluate) write_evaluate(out, *recipe.evaluate);
  if (recipe.report) out.text("report", recipe.report->string());
  if (!recipe.isa.empty()) out.word("isa", recipe.isa);
  return out.result();
}

}  // namespace llmpress
