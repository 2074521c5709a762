#include "recipes/texts_section.h"

#include <string>

#include "compress/core/error.h"
#include "recipes/stage_reader.h"
#include "recipes/yaml_tree.h"

namespace llmpress {
namespace {

using Path = std::filesystem::path;

DomainConfig read_domain(const YamlNode& node, const Path& folder) {
  const Section section(node, "domain");
  section.require("text");
  return {.text = path_at(section, "text", folder),
          .held_out = path_at(section, "held_out", folder),
          .weight = section.number("weight", 1, 1e-9, 1e9),
          .reference_loss = section.number("reference_loss", 0, 0, 1e3),
          .position = node.position};
}

// Several texts instead of one.
void read_domains(const Section& section, const Path& folder,
                  TrainStage& stage) {
  const YamlNode& list = *section.find("domains");
  for (const char* const key : {"text", "held_out"}) {
    if (section.has(key)) section.refuse(key, "is said by each of 'domains'");
  }
  if (list.kind != YamlNode::Kind::kList || list.items.size() < 2) {
    section.refuse("domains", "wants a list of two texts or more");
  }
  for (const YamlNode& item : list.items) {
    stage.domains.push_back(read_domain(item, folder));
    const bool held_out = !stage.domains.back().held_out.empty();
    if (held_out != !stage.domains.front().held_out.empty()) {
      fail_at(item.position,
              "'held_out' is said by some of 'domains' alone: wanted all or "
              "none");
    }
  }
}

}  // namespace

Path path_at(const Section& section, std::string_view key, const Path& folder) {
  if (!section.has(key)) return {};
  return resolve_path(
      folder, text_of(*section.find(key), "'" + std::string(key) + "'"));
}

void read_text(const Section& section, const Path& folder, TrainStage& stage) {
  section.require("text");
  stage.text = path_at(section, "text", folder);
  stage.held_out = path_at(section, "held_out", folder);
}

void read_texts(const Section& section, const Path& folder, TrainStage& stage) {
  if (section.has("domains")) {
    read_domains(section, folder, stage);
    stage.domain_rate =
        section.number("domain_rate", stage.domain_rate, 0, 1e3);
    return;
  }
  read_text(section, folder, stage);
  if (section.has("domain_rate")) {
    section.refuse("domain_rate", "belongs to 'domains'");
  }
}

void write_texts(YamlWriter& out, const TrainStage& stage) {
  if (stage.domains.empty()) {
    out.text("text", stage.text.string());
    if (!stage.held_out.empty()) {
      out.text("held_out", stage.held_out.string());
    }
    return;
  }
  out.open("domains");
  for (const DomainConfig& domain : stage.domains) {
    out.open_entry();
    out.text("text", domain.text.string());
    if (!domain.held_out.empty()) {
      out.text("held_out", domain.held_out.string());
    }
    out.number("weight", domain.weight);
    out.number("reference_loss", domain.reference_loss);
    out.close_entry();
  }
  out.close();
  out.number("domain_rate", stage.domain_rate);
}

}  // namespace llmpress
