#include "formats/gguf/gguf_sections.h"

#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_key_parts.h"

namespace llmpress {
namespace {

constexpr std::string_view kKey = "rope.dimension_sections";

std::vector<std::size_t> sections_of(const ConfigReader& config) {
  for (const char* level : {"rope_scaling", "rope_parameters"}) {
    const auto rope = config.object(level);
    if (!rope) continue;
    auto sections = rope->sizes("mrope_section");
    if (sections.size() > 4) rope->invalid("mrope_section", "three sizes");
    if (!sections.empty()) return sections;
  }
  return {};
}

}  // namespace

void read_gguf_sections(const GgufReading& in, JsonFields& out) {
  const auto sections = in.file.metadata().numbers(in.key(kKey));
  if (sections.empty()) return;
  if (sections.size() < 3 || out.contains("rope_scaling")) {
    unsupported_gguf_key(in, kKey, "three sizes and no scaling");
  }
  nlohmann::json list = nlohmann::json::array();
  for (std::size_t i = 0; i < 3; ++i) {
    if (!(sections[i] >= 0 && sections[i] <= 1e6)) {
      unsupported_gguf_key(in, kKey, "three sizes");
    }
    list.push_back(static_cast<std::size_t>(sections[i]));
  }
  out["rope_scaling"] = formatted(
      "{{\"rope_type\": \"default\", \"mrope_section\": {}}}", list.dump());
}

void write_gguf_sections(const GgufWriting& out, GgufSections kind) {
  const std::string turned_key =
      std::string(out.architecture) + ".rope.dimension_count";
  const std::size_t pairs = out.metadata.size(turned_key).value_or(0) / 2;
  std::vector<std::size_t> sections = sections_of(out.config);
  if (sections.empty()) {
    const std::size_t later =
        kind == GgufSections::kInterleaved ? (pairs + 1) / 3 : pairs / 3;
    sections = {pairs - later - pairs / 3, later, pairs / 3};
  }
  std::vector<std::int32_t> written;
  for (const std::size_t s : sections) {
    written.push_back(static_cast<std::int32_t>(s));
  }
  written.resize(4, 0);
  out.metadata.set_array(
      std::string(out.architecture) + "." + std::string(kKey), written);
}

}  // namespace llmpress
