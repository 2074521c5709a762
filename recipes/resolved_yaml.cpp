#include <charconv>
#include <string>
#include <string_view>
#include <variant>

#include "compress/core/formatted.h"
#include "recipes/recipe_parser.h"
#include "recipes/schemes.h"
#include "recipes/words.h"

namespace llmpress {
namespace {

std::string in_quotes(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto octet = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (octet < 0x20 || octet == 0x7f) {
      out += "\\x";
      out += kHex[octet >> 4];
      out += kHex[octet & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

// The shortest text that reads back as the same number.
std::string written(double value) {
  char buffer[32];
  const auto [end, code] = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, end};
}

// Indented "key: value" lines.
class Writer {
 public:
  void word(std::string_view key, std::string_view value) {
    indent();
    text_ += key;
    text_ += ": ";
    text_ += value;
    text_ += '\n';
  }
  void text(std::string_view key, std::string_view value) {
    word(key, in_quotes(value));
  }
  void number(std::string_view key, double value) { word(key, written(value)); }
  void count(std::string_view key, std::uint64_t value) {
    word(key, std::to_string(value));
  }
  void boolean(std::string_view key, bool value) {
    word(key, value ? "true" : "false");
  }
  void texts(std::string_view key, const std::vector<std::string>& values) {
    std::string list = "[";
    for (const std::string& value : values) {
      if (list.size() > 1) list += ", ";
      list += in_quotes(value);
    }
    word(key, list + "]");
  }
  void open(std::string_view key) {
    indent();
    text_ += key;
    text_ += ":\n";
    ++depth_;
  }
  void close() { --depth_; }
  // The next line starts a list entry; its lines stand one level deeper.
  void open_entry() {
    ++depth_;
    entry_ = true;
  }
  void close_entry() { --depth_; }

  const std::string& result() const { return text_; }

 private:
  void indent() {
    text_.append(2 * (depth_ - entry_), ' ');
    if (entry_) text_ += "- ";
    entry_ = false;
  }

  std::string text_;
  std::size_t depth_ = 0;
  bool entry_ = false;
};

std::string block_text(const WeightScheme& scheme) {
  return formatted("[{}, {}]", scheme.block_rows, scheme.block_cols);
}

void write_weights(Writer& out, const WeightScheme& scheme) {
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
      break;
  }
  out.close();
}

void write_input(Writer& out, const ActivationQuant& input) {
  out.open("input");
  out.word("type", name_of<ActivationQuant::Kind>(kInputTypeWords, input.kind));
  if (input.kind != ActivationQuant::Kind::kNone) {
    out.count("bits", static_cast<std::uint64_t>(input.bits));
    out.word("range",
             name_of<ActivationQuant::Range>(kInputRangeWords, input.range));
    out.boolean("symmetric", input.symmetric);
  }
  out.close();
}

template <class Config>
void write_damping(Writer& out, const Config& config) {
  out.number("damping_fraction", config.damping_fraction);
  out.word("damping_policy",
           name_of<DampingPolicy>(kDampingPolicyWords, config.damping_policy));
  out.number("damping_increment", config.damping_increment);
  out.number("damping_bound", config.damping_bound);
}

void write_gptq(Writer& out, const GptqConfig& gptq) {
  out.boolean("act_order", gptq.act_order);
  out.boolean("static_groups", gptq.static_groups);
  out.boolean("group_aware_order", gptq.group_aware_order);
  write_damping(out, gptq);
  out.word("dead_columns",
           name_of<DeadColumns>(kDeadColumnsWords, gptq.dead_columns));
  out.count("block_size", gptq.block_size);
  out.word("compat", name_of<bool>(kStaleGridWords, gptq.stale_grid));
  out.boolean("asymmetric_calibration", gptq.asymmetric_calibration);
  if (gptq.asymmetric_calibration) {
    out.number("gptaq_alpha", gptq.gptaq_alpha);
  }
}

void write_awq(Writer& out, const AwqConfig& awq) {
  out.count("ratios", awq.ratios);
  out.boolean("weight_term", awq.weight_term);
  out.boolean("clip", awq.clip);
  if (!awq.clip) return;
  out.count("clip_steps", awq.clip_steps);
  out.number("clip_max_shrink", awq.clip_max_shrink);
}

void write_smoothquant(Writer& out, const SmoothQuantConfig& smoothquant) {
  out.boolean("search_alpha", smoothquant.search_alpha);
  if (!smoothquant.search_alpha) out.number("alpha", smoothquant.alpha);
}

void write_selection(Writer& out, const LayerSelection& layers) {
  out.texts("targets", layers.targets);
  out.texts("ignore", layers.ignore);
}

void write_method_section(Writer& out, const QuantizeConfig& config) {
  out.open(config.method);
  if (config.method == "awq") write_awq(out, config.awq);
  if (config.method == "smoothquant") {
    write_smoothquant(out, config.smoothquant);
  }
  if (config.method == "hqq") {
    out.number("p", config.hqq.p);
    out.number("beta", config.hqq.beta);
    out.count("iterations", config.hqq.iterations);
  }
  if (config.method == "llm_int8") {
    out.number("threshold", config.llm_int8.threshold);
    out.word("outliers", name_of<LlmInt8Config::Outliers>(
                             kOutlierWords, config.llm_int8.outliers));
  }
  out.close();
}

void write_body(Writer& out, const QuantizeStage& stage) {
  const QuantizeConfig& config = stage.config;
  out.word("method", config.method);
  if (!stage.scheme.empty()) out.word("scheme", stage.scheme);
  write_weights(out, config.weights);
  write_input(out, config.input);
  if (is_key("quantize", config.method)) write_method_section(out, config);
  if (config.method == "awq" || config.method == "smoothquant" ||
      config.method == "auto") {
    out.word("solver", config.solver);
  }
  if (config.method == "gptq" || config.solver == "gptq") {
    write_gptq(out, config.gptq);
  }
  if (stage.target_bits) out.number("target_bits", *stage.target_bits);
  if (stage.target_bytes) out.count("target_bytes", *stage.target_bytes);
  write_selection(out, stage.layers);
}

void write_single_weights(Writer& out, const PruneStage& stage) {
  const PruneConfig& config = stage.config;
  out.number("sparsity", config.sparsity);
  if (config.patterned()) {
    out.text("pattern", formatted("{}:{}", config.keep, config.of));
  } else {
    out.word("pattern", "unstructured");
  }
  out.word("storage",
           name_of<SparseStorage>(kSparseStorageWords, config.storage));
  out.word("allocation",
           name_of<SparsityAllocation>(kAllocationWords, config.allocation));
  if (config.allocation == SparsityAllocation::kOwl) {
    out.number("owl_threshold", config.owl_threshold);
    out.number("owl_lambda", config.owl_lambda);
  }
  if (config.method == PruneMethod::kWanda) {
    out.boolean("wanda_variant", config.wanda_variant);
  }
  if (config.method == PruneMethod::kSparseGpt) {
    out.count("block_size", config.block_size);
    write_damping(out, config);
  }
  write_selection(out, stage.layers);
}

void write_structured(Writer& out, const PruneConfig& config) {
  const bool ffn_or_hidden = config.method == PruneMethod::kFfn ||
                             config.method == PruneMethod::kHidden;
  if (config.method == PruneMethod::kKvHeads) {
    out.count("kv_heads", config.kv_heads);
    out.word("kv_grouping",
             name_of<KvGrouping>(kKvGroupingWords, config.kv_grouping));
  } else {
    out.number("sparsity", config.sparsity);
  }
  if (ffn_or_hidden) out.count("multiple_of", config.multiple_of);
  if (ffn_or_hidden || config.method == PruneMethod::kHeads) {
    out.word("importance",
             name_of<Importance>(kImportanceWords, config.importance));
  }
  if (config.method == PruneMethod::kDepth) {
    out.word("depth_importance",
             name_of<DepthImportance>(kDepthImportanceWords,
                                      config.depth_importance));
  }
  out.boolean("heal", config.heal);
  write_damping(out, config);
}

void write_body(Writer& out, const PruneStage& stage) {
  const PruneMethod method = stage.config.method;
  out.word("method", name_of<PruneMethod>(kPruneMethodWords, method));
  if (method == PruneMethod::kMagnitude || method == PruneMethod::kWanda ||
      method == PruneMethod::kSparseGpt) {
    write_single_weights(out, stage);
  } else {
    write_structured(out, stage.config);
  }
}

void write_body(Writer& out, const MergeLoraStage& stage) {
  out.text("adapter", stage.adapter.string());
  out.number("scale", stage.scale);
}

void write_body(Writer& out, const SmoothStage& stage) {
  out.word("method", name_of<SmoothMethod>(kSmoothMethodWords, stage.method));
  if (stage.method == SmoothMethod::kAwq) {
    write_awq(out, stage.awq);
  } else {
    write_smoothquant(out, stage.smoothquant);
  }
  if (stage.weights) write_weights(out, *stage.weights);
}

void write_body(Writer& out, const RotateStage& stage) {
  out.count("seed", stage.seed);
  out.boolean("online", stage.online);
}

void write_body(Writer& out, const InjectOutliersStage& stage) {
  out.number("factor", stage.factor);
  out.count("channels", stage.channels);
}

void write_body(Writer& out, const QuantizeKvCacheStage& stage) {
  out.word("type", name_of<KvScaleType>(kKvScaleTypeWords, stage.type));
}

void write_body(Writer& out, const DistillStage& stage) {
  out.text("student", stage.student);
  if (!stage.loss.empty()) out.text("loss", stage.loss);
}

void write_stages(Writer& out, const std::vector<Stage>& stages) {
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

void write_output(Writer& out, const OutputConfig& output) {
  out.open("output");
  out.text("path", output.path.string());
  out.word("format", output.format);
  out.count("max_shard_size", output.max_shard_size);
  out.word("incompatible",
           name_of<Incompatible>(kIncompatibleWords, output.incompatible));
  out.close();
}

void write_calibration(Writer& out, const CalibrationConfig& config) {
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

void write_evaluate(Writer& out, const EvaluateConfig& config) {
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
  out.close();
}

void write_variants(Writer& out, const std::vector<Variant>& variants) {
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
  Writer out;
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
