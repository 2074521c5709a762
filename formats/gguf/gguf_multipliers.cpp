#include "formats/gguf/gguf_multipliers.h"

#include <cmath>
#include <vector>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_keys.h"

namespace llmpress {
namespace {

constexpr std::string_view kKey = "llmpress.multipliers";

// Single ones, in the order of the list in metadata.
constexpr std::pair<const char*, float GgufMultipliers::*> kSingle[] = {
    {"embedding_multiplier", &GgufMultipliers::embedding},
    {"lm_head_multiplier", &GgufMultipliers::head},
    {"key_multiplier", &GgufMultipliers::key},
    {"attention_in_multiplier", &GgufMultipliers::attention_in},
    {"attention_out_multiplier", &GgufMultipliers::attention_out},
    {"ssm_in_multiplier", &GgufMultipliers::mixer_in},
    {"ssm_out_multiplier", &GgufMultipliers::mixer_out}};

std::vector<float> list_of(const GgufMultipliers& m) {
  std::vector<float> list;
  for (const auto& [key, member] : kSingle) list.push_back(m.*member);
  list.push_back(m.output);
  list.push_back(m.gate);
  list.push_back(m.down);
  list.insert(list.end(), m.parts.begin(), m.parts.end());
  return list;
}

// Absent: 1.
std::vector<double> factors_of(const ConfigReader& config, const char* key,
                               std::size_t count) {
  std::vector<double> written = config.numbers(key);
  if (written.empty()) written.assign(count, 1.0);
  if (written.size() != count) {
    config.invalid(key, formatted("{} numbers", count));
  }
  return written;
}

}  // namespace

float stream_divisor(const GgufMultipliers& m) { return m.down / m.gate; }

float embedding_factor(const GgufMultipliers& m) {
  return m.embedding / stream_divisor(m);
}

bool has_multipliers(const ConfigReader& config) {
  const auto differs = [&](const char* key) {
    for (const double factor : config.numbers(key)) {
      if (factor != 1) return true;
    }
    return false;
  };
  for (const auto& [key, member] : kSingle) {
    if (differs(key)) return true;
  }
  return differs("mlp_multipliers") || differs("ssm_multipliers");
}

bool has_multipliers(const GgufMetadata& metadata) {
  return metadata.find(kKey) != nullptr;
}

GgufMultipliers read_multipliers(const ConfigReader& config, bool tied) {
  GgufMultipliers m;
  for (const auto& [key, member] : kSingle) {
    m.*member = static_cast<float>(config.number(key).value_or(1));
  }
  const auto mlp = factors_of(config, "mlp_multipliers", 2);
  m.gate = static_cast<float>(mlp[0]);
  m.down = static_cast<float>(mlp[1]);
  const auto parts = factors_of(config, "ssm_multipliers", m.parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    m.parts[i] = static_cast<float>(parts[i]);
  }
  if (m.embedding == 0) {
    config.unsupported("embedding_multiplier", "other than 0");
  }
  if (m.gate == 0 || m.down == 0) {
    config.unsupported("mlp_multipliers", "other than 0");
  }
  if (m.head == 0) config.unsupported("lm_head_multiplier", "other than 0");
  m.output = tied ? m.head / embedding_factor(m) : m.head;
  if (m.parts.front() == 0 || m.parts.front() != m.parts.back()) {
    config.unsupported("ssm_multipliers",
                       "one factor for the gate and the time steps: llama.cpp "
                       "has one for both");
  }
  return m;
}

void write_multipliers(const GgufMultipliers& m, JsonFields& out) {
  for (const auto& [key, member] : kSingle) {
    out[key] = json_number(static_cast<double>(m.*member));
  }
  out["mlp_multipliers"] = json_numbers(std::array{m.gate, m.down});
  out["ssm_multipliers"] = json_numbers(m.parts);
}

GgufMultipliers read_multipliers(const GgufMetadata& metadata) {
  GgufMultipliers m;
  const std::vector<double> list = metadata.numbers(kKey);
  if (list.empty()) return m;
  if (list.size() != list_of(m).size()) {
    metadata.invalid(kKey, formatted("{} numbers", list_of(m).size()));
  }
  for (const double factor : list) {
    if (!std::isfinite(factor)) metadata.invalid(kKey, "finite numbers");
  }
  std::size_t at = 0;
  const auto next = [&] { return static_cast<float>(list[at++]); };
  for (const auto& [key, member] : kSingle) m.*member = next();
  m.output = next();
  m.gate = next();
  m.down = next();
  for (float& part : m.parts) part = next();
  if (m.embedding == 0 || m.parts[0] == 0 || m.gate == 0 || m.down == 0 ||
      m.output == 0) {
    metadata.invalid(kKey, "other factors than 0");
  }
  return m;
}

void write_multipliers(const GgufMultipliers& m, GgufMetadata& metadata) {
  metadata.set_array(std::string(kKey), list_of(m));
}

std::map<std::string, float> multiplier_scales(const GgufMultipliers& m,
                                               std::size_t layers) {
  const std::pair<const char*, float> scales[] = {
      {"attn_q", m.attention_in},
      {"attn_k", m.attention_in * m.key},
      {"attn_v", m.attention_in},
      {"attn_output", m.attention_out / stream_divisor(m)},
      {"ssm_in", m.mixer_in * m.parts[0]},
      {"ssm_out", m.mixer_out / stream_divisor(m)}};
  std::map<std::string, float> named;
  for (std::size_t l = 0; l < layers; ++l) {
    for (const auto& [name, factor] : scales) {
      if (factor != 1) named[formatted("blk.{}.{}.scale", l, name)] = factor;
    }
  }
  return named;
}

}  // namespace llmpress
