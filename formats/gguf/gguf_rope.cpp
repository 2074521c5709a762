#include <algorithm>
#include <cmath>
#include <numbers>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_keys.h"

namespace llmpress {
namespace {

constexpr std::string_view kFreqs = "rope_freqs.weight";
constexpr std::string_view kShort = "rope_factors_short.weight";
constexpr std::string_view kLong = "rope_factors_long.weight";

std::string object_of(const JsonFields& fields) {
  std::string text = "{";
  for (const auto& [key, value] : fields) {
    text += (text.size() > 1 ? ", " : "") + json_text(key) + ": " + value;
  }
  return text + "}";
}

[[noreturn]] void unsupported(const GgufReading& in, const std::string& what) {
  fail(ErrorCode::kUnsupported, "{}: {}", in.file.metadata().origin(), what);
}

// "longrope" with divisors that do not depend on the length.
std::string same_divisors(const GgufReading& in,
                          std::span<const float> divisors) {
  return object_of({{"rope_type", "\"longrope\""},
                    {"short_factor", json_numbers(divisors)},
                    {"long_factor", json_numbers(divisors)},
                    {"factor", "1.0"},
                    {"attention_factor", "1.0"},
                    {"original_max_position_embeddings",
                     formatted("{}", in.require_size("context_length"))}});
}

std::optional<ConfigReader> rope_object(const ConfigReader& config) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (auto rope = config.object(key)) return rope;
  }
  return std::nullopt;
}

std::string type_of(const std::optional<ConfigReader>& rope) {
  if (!rope) return "default";
  const auto older = rope->text("type");
  return rope->text("rope_type").value_or(older.value_or("default"));
}

double theta_of(const GgufWriting& out, const std::optional<ConfigReader>& rope,
                double fallback) {
  const auto inner = rope ? rope->number("rope_theta") : std::nullopt;
  return inner ? *inner : out.config.number("rope_theta").value_or(fallback);
}

double require_number(const ConfigReader& rope, std::string_view key) {
  const auto value = rope.number(key);
  if (!value || !(*value > 0)) rope.invalid(key, "a positive number");
  return *value;
}

std::size_t original_positions(const GgufWriting& out,
                               const ConfigReader& rope) {
  constexpr std::string_view kKey = "original_max_position_embeddings";
  const auto outer = out.config.size(kKey);
  const auto inner = rope.size(kKey);
  const auto found = outer ? outer : inner;
  if (!found || *found == 0) rope.invalid(kKey, "a size above 0");
  return *found;
}

// Llama 3's scaling (llama_models, apply_scaling): the divisor of each pair.
std::vector<float> llama3_divisors(const GgufWriting& out,
                                   const ConfigReader& rope,
                                   std::size_t head_dim, double theta) {
  const double factor = require_number(rope, "factor");
  const double low = require_number(rope, "low_freq_factor");
  const double high = require_number(rope, "high_freq_factor");
  const auto original = static_cast<double>(original_positions(out, rope));
  std::vector<float> divisors;
  for (std::size_t j = 0; j < head_dim / 2; ++j) {
    const double wavelength =
        2 * std::numbers::pi *
        std::pow(theta,
                 2 * static_cast<double>(j) / static_cast<double>(head_dim));
    double divisor = 1;
    if (wavelength > original / low) {
      divisor = factor;
    } else if (wavelength > original / high) {
      const double smooth = (original / wavelength - low) / (high - low);
      divisor = 1 / ((1 - smooth) / factor + smooth);
    }
    divisors.push_back(static_cast<float>(divisor));
  }
  return divisors;
}

void write_yarn(const GgufWriting& out, const ConfigReader& rope,
                const GgufYarn& yarn) {
  if (yarn.betas) {
    out.number("rope.scaling.yarn_beta_fast",
               rope.number("beta_fast").value_or(32));
    out.number("rope.scaling.yarn_beta_slow",
               rope.number("beta_slow").value_or(1));
  }
  if (yarn.log_multiplier != 0) {
    out.number("rope.scaling.yarn_log_multiplier", yarn.log_multiplier);
  }
  const auto refuse = [&](const char* key, double usual) {
    if (rope.number(key).value_or(usual) == usual) return;
    rope.unsupported(key, "none: GGUF is written without it");
  };
  refuse("attention_factor", 0);
  if (!yarn.betas) {
    refuse("beta_fast", 32);
    refuse("beta_slow", 1);
  }
  if (yarn.log_multiplier == 0) {
    refuse("mscale", 0);
    refuse("mscale_all_dim", 0);
  }
}

std::vector<float> floats_of(const ConfigReader& rope, std::string_view key,
                             std::size_t count) {
  const std::vector<double> values = rope.numbers(key);
  if (values.size() != count) {
    rope.invalid(key, formatted("{} numbers", count));
  }
  return {values.begin(), values.end()};
}

void write_same_divisors(const GgufWriting& out, const ConfigReader& rope,
                         std::size_t head_dim) {
  const auto divisors = floats_of(rope, "short_factor", head_dim / 2);
  if (divisors != floats_of(rope, "long_factor", head_dim / 2) ||
      rope.number("attention_factor").value_or(0) != 1) {
    rope.unsupported("rope_type", "none of LongRoPE, which depends on length");
  }
  out.extra_tensors.emplace_back(kFreqs, divisors);
}

}  // namespace

void read_gguf_rope(const GgufReading& in, JsonFields& out) {
  if (const auto theta = in.number("rope.freq_base")) {
    out["rope_theta"] = json_number(*theta);
  }
  const std::string key = in.key("rope.scaling.type");
  const std::string type = in.file.metadata().text(key).value_or("none");
  const double factor = in.number("rope.scaling.factor").value_or(1);
  if (in.has(kFreqs)) {
    if (type != "none" && !(type == "linear" && factor == 1)) {
      unsupported(in, formatted("'{}' is '{}' beside {}", key, type, kFreqs));
    }
    out["rope_scaling"] = same_divisors(in, in.vector(kFreqs));
  } else if (type == "linear" && factor != 1) {
    out["rope_scaling"] = object_of(
        {{"rope_type", "\"linear\""}, {"factor", json_number(factor)}});
  } else if (type == "yarn") {
    out["rope_scaling"] = object_of(
        {{"rope_type", "\"yarn\""},
         {"factor", json_number(factor)},
         {"original_max_position_embeddings",
          formatted("{}",
                    in.require_size("rope.scaling.original_context_length"))}});
  } else if (type != "none" && type != "linear") {
    unsupported(
        in, formatted("'{}' is '{}', wanted none, linear or yarn", key, type));
  }
  if (in.number("rope.scaling.attn_factor").value_or(1) != 1) {
    unsupported(in, "'" + in.key("rope.scaling.attn_factor") + "' is not 1");
  }
}

void write_gguf_rope(const GgufWriting& out, std::size_t head_dim,
                     double default_theta) {
  write_gguf_rope_of(out, rope_object(out.config), head_dim, default_theta);
}

void write_gguf_rope_of(const GgufWriting& out,
                        const std::optional<ConfigReader>& rope,
                        std::size_t head_dim, double default_theta,
                        const GgufYarn& yarn) {
  const std::string type = type_of(rope);
  const double theta = theta_of(out, rope, default_theta);
  out.number("rope.freq_base", theta);
  if (type == "default" || type == "mrope") return;
  if (type == "linear") {
    out.metadata.set(std::string(out.architecture) + ".rope.scaling.type",
                     std::string("linear"));
    out.number("rope.scaling.factor", require_number(*rope, "factor"));
  } else if (type == "yarn") {
    write_yarn(out, *rope, yarn);
    out.metadata.set(std::string(out.architecture) + ".rope.scaling.type",
                     std::string("yarn"));
    out.number("rope.scaling.factor", require_number(*rope, "factor"));
    out.size("rope.scaling.original_context_length",
             original_positions(out, *rope));
  } else if (type == "llama3") {
    out.extra_tensors.emplace_back(
        kFreqs, llama3_divisors(out, *rope, head_dim, theta));
  } else if (type == "longrope" || type == "su") {
    write_same_divisors(out, *rope, head_dim);
  } else {
    rope->unsupported("rope_type", "default, linear, yarn or llama3");
  }
}

void read_gguf_long_rope(const GgufReading& in, JsonFields& out) {
  if (const auto theta = in.number("rope.freq_base")) {
    out["rope_theta"] = json_number(*theta);
  }
  if (!in.has(kShort) && !in.has(kLong)) return;
  JsonFields rope{
      {"rope_type", "\"longrope\""},
      {"short_factor", json_numbers(in.vector(kShort))},
      {"long_factor", json_numbers(in.vector(kLong))},
      {"attention_factor",
       json_number(in.number("rope.scaling.attn_factor").value_or(1))}};
  const std::size_t original =
      in.require_size("rope.scaling.original_context_length");
  rope["original_max_position_embeddings"] = formatted("{}", original);
  out["rope_scaling"] = object_of(rope);
  out["original_max_position_embeddings"] = formatted("{}", original);
}

void write_gguf_long_rope(const GgufWriting& out, std::size_t head_dim) {
  const auto rope = rope_object(out.config);
  const std::string type = type_of(rope);
  out.number("rope.freq_base", theta_of(out, rope, 10000));
  out.size("rope.dimension_count", head_dim);
  if (type == "default") return;
  if (type != "longrope" && type != "su") {
    rope->unsupported("rope_type", "default or longrope");
  }
  constexpr std::string_view kOriginal = "original_max_position_embeddings";
  const std::size_t original =
      out.config.size(kOriginal).value_or(rope->size(kOriginal).value_or(4096));
  const std::size_t most =
      out.config.size("max_position_embeddings").value_or(4096);
  const double factor =
      static_cast<double>(most) / static_cast<double>(original);
  double attention =
      factor <= 1 ? 1.0
                  : std::sqrt(1 + std::log(factor) /
                                      std::log(static_cast<double>(original)));
  attention = rope->number("attention_factor").value_or(attention);
  out.number("rope.scaling.attn_factor", attention);
  out.size("rope.scaling.original_context_length", original);
  out.extra_tensors.emplace_back(
      kShort, floats_of(*rope, "short_factor", head_dim / 2));
  out.extra_tensors.emplace_back(kLong,
                                 floats_of(*rope, "long_factor", head_dim / 2));
}

}  // namespace llmpress
