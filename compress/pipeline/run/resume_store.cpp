#include "compress/pipeline/run/resume_store.h"

#include <chrono>
#include <cstdio>
#include <thread>

#include "compress/core/formatted.h"
#include "compress/pipeline/reports/layer_report_json.h"
#include "compress/pipeline/run/block_writer.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/files/path_location.h"
#include "formats/files/replaceable.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLayersFile = "layers.json";

}  // namespace

fs::path resume_path(const fs::path& output) {
  fs::path path = resolve_path(output);
  path += ".resume";
  return path;
}

ResumeStore::ResumeStore(fs::path directory, const std::string& fingerprint,
                         bool resume)
    : directory_(std::move(directory)) {
  check_replaceable(directory_, OutputKind::kResume);
  const fs::path file = directory_ / kResumeFile;
  const std::string mark = std::string(kResumeMark) + fingerprint;
  if (resume && fs::exists(file) && read_file(file) == mark) return;
  remove();
  std::error_code error;
  fs::create_directories(directory_, error);
  if (error) {
    fail(ErrorCode::kIo, "{}: {}", directory_, error.message());
  }
  write_file_atomically(file, mark);
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

bool ResumeStore::has(std::size_t layer) const {
  return fs::exists(block_path(layer));
}

CompressedBlock ResumeStore::load(std::size_t layer, const Architecture& arch,
                                  const Checkpoint& source) const {
  const fs::path path = block_path(layer);
  const auto checkpoint = open_checkpoint(path);
  BlockWeights weights = read_written_block(*checkpoint, arch, layer);
  weights.parameters = read_block_parameters(source, arch, layer);
  return {.weights = std::move(weights),
          .norm_dtypes = read_norm_dtypes(*checkpoint, arch, layer),
          .layers = layers_from_json(read_file(path / kLayersFile),
                                     (path / kLayersFile).string()),
          .kv_scales = read_kv_scales(checkpoint->tensors(), arch, layer)};
}

std::vector<LayerReport> ResumeStore::layers(std::size_t layer) const {
  const fs::path path = block_path(layer) / kLayersFile;
  await(path);
  return layers_from_json(read_file(path), path.string());
}

void ResumeStore::save(const CompressedBlock& block, std::size_t layer,
                       const Architecture& arch,
                       const std::string& config_json) {
  const auto writer = make_artifact_writer({.output = block_path(layer)});
  add_block(*writer, block, layer, arch);
  writer->add_file(kLayersFile, layers_to_json(block.layers));
  writer->finish(config_json);
}

void ResumeStore::remove() {
  // A leftover folder is no reason to fail. The mark goes last, so that what a
  // kill leaves is known for ours.
  std::error_code ignored;
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(directory_, ignored)) {
    if (entry.path().filename() != kResumeFile) entries.push_back(entry.path());
  }
  for (const fs::path& entry : entries) {
    fs::path going = entry;
    going += ".going";  // no name of a block: half of one is never taken up
    fs::remove_all(going, ignored);
    fs::rename(entry, going, ignored);
    fs::remove_all(going, ignored);
  }
  fs::remove_all(directory_, ignored);
}

fs::path ResumeStore::block_path(std::size_t layer) const {
  char name[32];
  std::snprintf(name, sizeof(name), "block-%05zu", layer);
  return directory_ / name;
}

}  // namespace llmpress
