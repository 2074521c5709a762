#include "compress/pipeline/run/structured_progress.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "compress/model/block_weights.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/files/content_hash.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kChoicesFile = "reduced-choices";
constexpr const char* kFingerprint = "\nstage: structured pruning\n";
constexpr const char* kPacked = "packed";  // no type of a dense weight

json to_json(const StructuredChoices& choices) {
  json removed = json::array();
  for (const RemovedBlock& block : choices.depth.removed) {
    removed.push_back({block.layer, block.reason});
  }
  return {{"kept_blocks", choices.depth.kept},
          {"removed_blocks", removed},
          {"channels", choices.hidden.kept},
          {"gains", choices.hidden.gains},
          {"final_gain", choices.hidden.final_gain},
          {"scores", choices.scores}};
}

StructuredChoices choices_from(const json& from) {
  StructuredChoices choices;
  from.at("kept_blocks").get_to(choices.depth.kept);
  for (const json& block : from.at("removed_blocks")) {
    choices.depth.removed.push_back(
        {.layer = block.at(0).get<std::size_t>(), .reason = block.at(1)});
  }
  from.at("channels").get_to(choices.hidden.kept);
  from.at("gains").get_to(choices.hidden.gains);
  from.at("final_gain").get_to(choices.hidden.final_gain);
  from.at("scores").get_to(choices.scores);
  return choices;
}

}  // namespace

StructuredProgress::StructuredProgress(const fs::path& directory)
    : store_(directory, kFingerprint, true),
      masks_(store_.directory() / "reduced-masks") {}

std::optional<StructuredChoices> StructuredProgress::choices() const {
  const fs::path file = store_.directory() / kChoicesFile;
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  const std::string text = read_file(file);
  const std::size_t end = text.find('\n');
  if (end == std::string::npos ||
      text.substr(0, end) != content_hash(text.substr(end + 1))) {
    return std::nullopt;
  }
  return choices_from(json::parse(text.substr(end + 1)));
}

void StructuredProgress::save(const StructuredChoices& choices) const {
  const std::string text = to_json(choices).dump();
  write_file_atomically(store_.directory() / kChoicesFile,
                        content_hash(text) + "\n" + text);
}

bool StructuredProgress::has(std::size_t p) {
  bool damaged = false;
  std::error_code ignored;
  return fs::exists(types_path(p), ignored) && store_.has(p, damaged);
}

StructuredProgress::ReducedBlock StructuredProgress::load(
    std::size_t p, const Architecture& reduced, const DenseBlock& dense,
    ThreadPool& pool) const {
  const auto checkpoint = store_.open(p);
  ReducedBlock loaded{.reports = store_.layers(p)};
  DenseBlock& block = loaded.block;
  block.norms = read_block_norms(*checkpoint, reduced, p);
  block.norm_dtypes = dense.norm_dtypes;
  block.parameters = dense.parameters;
  std::istringstream types(read_file(types_path(p)));
  for (LinearWeights& stored : read_written_linears(*checkpoint, reduced, p)) {
    DenseLinear linear = dense_linear(std::move(stored), pool);
    std::string type;
    types >> type;
    const std::optional<DType> wanted = parse_dtype(type);
    linear.changed = linear.dtype != wanted;
    linear.dtype = wanted;
    block.linears.push_back(std::move(linear));
  }
  return loaded;
}

void StructuredProgress::save(std::size_t p, const Architecture& reduced,
                              const std::string& config_json,
                              const DenseBlock& block,
                              const std::vector<LayerReport>& reports) {
  CompressedBlock written{.layers = reports};
  written.weights.norms = block.norms;
  for (const auto& [norm, dtype] : block.norm_dtypes) {
    written.norm_dtypes[norm] = DType::kF32;
  }
  std::string types;
  for (std::size_t l = 0; l < block.linears.size(); ++l) {
    const std::optional<DType> dtype = block.linears[l].dtype;
    types += std::string(dtype ? facts(*dtype).name : kPacked) + "\n";
    written.weights.linears.push_back(block.runnable(l));
  }
  write_file_atomically(types_path(p), types);
  store_.save(written, p, reduced, config_json);
}

fs::path StructuredProgress::types_path(std::size_t p) const {
  char name[40];
  std::snprintf(name, sizeof(name), "reduced-types-%05zu", p);
  return store_.directory() / name;
}

}  // namespace llmpress
