#include "compress/pipeline/run/resume_store.h"

#include <chrono>
#include <cstdio>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "compress/core/formatted.h"
#include "compress/pipeline/reports/layer_report_json.h"
#include "compress/pipeline/run/block_writer.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/checkpoints/written_hashes.h"
#include "formats/files/atomic_file.h"
#include "formats/files/path_location.h"
#include "formats/files/replaceable.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLayersFile = "layers.json";

// Of a block's header, generously: what does not fit is written twice.
constexpr std::size_t kTensorsOfLinear = 6, kHeaderOfTensor = 192;

std::map<std::string, std::string> lines_by_name(const std::string& text) {
  std::map<std::string, std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) {
      lines[line.substr(0, colon)] = line.substr(colon + 2);
    }
  }
  return lines;
}

// Names of lines that only one has, or that differ.
std::vector<std::string> differing_names(const std::string& was,
                                         const std::string& is) {
  const auto before = lines_by_name(was), now = lines_by_name(is);
  std::set<std::string> names;
  for (const auto* lines : {&before, &now}) {
    for (const auto& [name, value] : *lines) {
      const auto other = (lines == &before ? now : before).find(name);
      if (other == (lines == &before ? now : before).end() ||
          other->second != value) {
        names.insert(name);
      }
    }
  }
  return {names.begin(), names.end()};
}

void take_away(const fs::path& entry) {
  // No name of a block: half of one is never taken up. A leftover folder is no
  // reason to fail.
  std::error_code ignored;
  fs::path going = entry;
  going += ".going";
  fs::remove_all(going, ignored);
  fs::rename(entry, going, ignored);
  fs::remove_all(going, ignored);
}

}  // namespace

fs::path resume_path(const fs::path& output) {
  fs::path path = resolve_path(output);
  path += ".resume";
  return path;
}

std::string ResumeStore::changed_note() const {
  if (changed_.empty()) return {};
  std::string line =
      "what an interrupted run left is not used: it was made with another ";
  for (const std::string& name : changed_) {
    line += (line.back() == ' ' ? "" : ", ") + name;
  }
  return line;
}

ResumeStore::ResumeStore(fs::path directory, const std::string& fingerprint,
                         bool resume)
    : directory_(std::move(directory)) {
  check_replaceable(directory_, OutputKind::kResume);
  const fs::path file = directory_ / kResumeFile;
  const std::string mark = std::string(kResumeMark) + fingerprint;
  if (resume && fs::exists(file)) {
    const std::string was = read_file(file);
    if (was == mark) return;
    changed_ = differing_names(was, mark);
  }
  remove();
  std::error_code error;
  fs::create_directories(directory_, error);
  if (error) {
    fail(ErrorCode::kIo, "{}: {}", directory_, error.message());
  }
  write_file_atomically(file, mark);
}

ResumeStore::ResumeStore(const fs::path& output, const OutputResume& resume)
    : ResumeStore(resume_path(output), resume.fingerprint, resume.take_up) {
  if (resume.log && !changed_.empty()) resume.log(changed_note());
}

ResumeStore::ResumeStore(fs::path directory)
    : directory_(std::move(directory)) {
  await(directory_ / kResumeFile);
}

// File systems over a network show what another machine wrote some time later.
void ResumeStore::await(const fs::path& file) const {
  constexpr auto kLongest = std::chrono::seconds(30);
  const auto start = std::chrono::steady_clock::now();
  while (!fs::exists(file)) {
    if (std::chrono::steady_clock::now() - start > kLongest) {
      fail(ErrorCode::kIo,
           "{}: another rank wrote it, and it does not come in sight here: the "
           "output must stand on a file system that all ranks share",
           file);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

bool ResumeStore::has(std::size_t layer, bool& damaged) {
  const fs::path path = block_path(layer);
  if (!fs::exists(path)) return false;
  if (is_as_written(path)) return true;
  damaged = true;
  take_away(path);
  return false;
}

CompressedBlock ResumeStore::load(std::size_t layer, const Architecture& arch,
                                  const Checkpoint& source) const {
  CompressedBlock block = load_rest(layer, arch, source);
  block.weights.linears = read_written_linears(*open(layer), arch, layer);
  return block;
}

CompressedBlock ResumeStore::load_rest(std::size_t layer,
                                       const Architecture& arch,
                                       const Checkpoint& source) const {
  const auto checkpoint = open(layer);
  BlockWeights weights;
  weights.norms = read_block_norms(*checkpoint, arch, layer);
  weights.parameters = read_block_parameters(source, arch, layer);
  const fs::path layers = block_path(layer) / kLayersFile;
  return {.weights = std::move(weights),
          .norm_dtypes = read_norm_dtypes(*checkpoint, arch, layer),
          .layers = layers_from_json(read_file(layers), layers.string()),
          .kv_scales = read_kv_scales(checkpoint->tensors(), arch, layer)};
}

std::unique_ptr<Checkpoint> ResumeStore::open(std::size_t layer) const {
  return open_checkpoint(block_path(layer));
}

StoredLinears ResumeStore::stored(std::size_t layer) const {
  return {.checkpoint = open(layer),
          .hashes = read_tensor_hashes(block_path(layer))};
}

std::vector<LayerReport> ResumeStore::layers(std::size_t layer) const {
  const fs::path path = block_path(layer) / kLayersFile;
  await(path);
  return layers_from_json(read_file(path), path.string());
}

void ResumeStore::save(const CompressedBlock& block, std::size_t layer,
                       const Architecture& arch,
                       const std::string& config_json) {
  take_away(block_path(layer));  // what was of no use
  const std::size_t tensors =
      16 + kTensorsOfLinear * arch.block(layer).linears.size();
  const auto writer = make_artifact_writer(
      {.output = block_path(layer), .passing_room = tensors * kHeaderOfTensor});
  add_block(*writer, block, layer, arch);
  writer->add_file(kLayersFile, layers_to_json(block.layers));
  writer->finish(config_json);
  take_away(linears_path(layer));
}

LinearStore ResumeStore::linears(std::size_t layer) const {
  return LinearStore(linears_path(layer));
}

void ResumeStore::remove() {
  // The mark goes last, so that what a kill leaves is known for ours.
  std::error_code ignored;
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(directory_, ignored)) {
    if (entry.path().filename() != kResumeFile) entries.push_back(entry.path());
  }
  for (const fs::path& entry : entries) take_away(entry);
  fs::remove_all(directory_, ignored);
}

fs::path ResumeStore::block_path(std::size_t layer) const {
  char name[32];
  std::snprintf(name, sizeof(name), "block-%05zu", layer);
  return directory_ / name;
}

fs::path ResumeStore::linears_path(std::size_t layer) const {
  char name[32];
  std::snprintf(name, sizeof(name), "linears-%05zu", layer);
  return directory_ / name;
}

}  // namespace llmpress
