#include "compress/model/prepacked_weights.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/model/block_weights.h"
#include "compress/model/model_files.h"
#include "compress/model/model_head.h"
#include "formats/containers/safetensors.h"
#include "formats/files/atomic_file.h"
#include "formats/files/content_hash.h"
#include "formats/files/mapped_file.h"
#include "formats/files/output_lock.h"
#include "formats/files/path_location.h"
#include "formats/files/replaceable.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLayoutKey = "llmpress_layout";
constexpr std::string_view kModelKey = "model";
constexpr std::string_view kHashesKey = "hashes";
// More than any Linear has: what the header has room for.
constexpr std::size_t kMostBytes = 10'000'000'000'000;

struct NamedLinear {
  std::string name{};
  std::function<LinearWeights()> read{};
};

std::vector<NamedLinear> linears_of(const Checkpoint& checkpoint,
                                    const Architecture& arch) {
  std::vector<NamedLinear> linears;
  linears.push_back(
      {head_name(arch), [&] { return read_head(checkpoint, arch); }});
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (std::size_t i = 0; i < arch.block(layer).linears.size(); ++i) {
      linears.push_back({arch.linear_name(layer, i), [&, layer, i] {
                           return read_block_linear(checkpoint, arch, layer, i);
                         }});
    }
  }
  return linears;
}

// Takes Linears one after another, behind room for a header that is written
// last.
class PrepackedFile {
 public:
  PrepackedFile(const fs::path& path, const fs::path& model,
                std::span<const NamedLinear> linears)
      : path_(path), partial_(path), model_(model_state(model)) {
    std::vector<TensorInfo> infos;
    std::string hashes;
    for (const NamedLinear& linear : linears) {
      infos.push_back(info(linear.name, kMostBytes));
      hashes += std::string(kContentHashDigits, '0') + " " + linear.name + "\n";
    }
    room_ =
        ceil_div(header(infos, hashes, 0).size(), kVectorBytes) * kVectorBytes;
    file_ = OutputFile(partial_.path() / path.filename());
    file_.write(std::string(room_, ' '));
  }

  void add(const std::string& name, std::span<const std::byte> octets,
           const std::string& hash) {
    file_.write(octets);
    infos_.push_back(info(name, octets.size()));
    hashes_ += hash + " " + name + "\n";
  }

  void finish() {
    const std::string text = header(infos_, hashes_, room_);
    file_.write_at(0, std::as_bytes(std::span(text)));
    file_.close();
    replace_path(partial_.path() / path_.filename(), path_);
  }

 private:
  static TensorInfo info(const std::string& name, std::size_t bytes) {
    return {
        .name = name, .dtype = DType::kU8, .shape = {bytes}, .bytes = bytes};
  }
  std::string header(std::span<const TensorInfo> infos,
                     const std::string& hashes, std::size_t room) const {
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < infos.size(); ++i) order.push_back(i);
    return safetensors_header(
        infos,
        {{std::string(kVersionKey), LLMPRESS_VERSION},
         {std::string(kLayoutKey), std::to_string(kLayoutVersion)},
         {std::string(kModelKey), model_},
         {std::string(kHashesKey), hashes}},
        order, room);
  }

  fs::path path_;
  PartialDirectory partial_;
  std::string model_;
  std::size_t room_ = 0;
  OutputFile file_{};
  std::vector<TensorInfo> infos_{};
  std::string hashes_{};
};

}  // namespace

fs::path prepacked_path(const fs::path& model) {
  std::error_code ignored;
  if (fs::is_directory(model, ignored)) return model / kPrepackedFile;
  fs::path path = model;
  path += kPrepackedSuffix;
  return path;
}

std::shared_ptr<const PrepackedWeights> PrepackedWeights::open(
    const Checkpoint& checkpoint, std::string& reason) {
  const fs::path path = prepacked_path(checkpoint.path());
  if (!path_exists(path)) {
    reason = "is not there";
    return nullptr;
  }
  std::shared_ptr<PrepackedWeights> weights(new PrepackedWeights);
  weights->path_ = path.string();
  weights->reader_ = open_safetensors(path);
  const auto says = [&](std::string_view key) {
    const auto& metadata = weights->reader_->metadata();
    const auto found = metadata.find(std::string(key));
    return found == metadata.end() ? std::string() : found->second;
  };
  if (says(kVersionKey) != LLMPRESS_VERSION ||
      says(kLayoutKey) != std::to_string(kLayoutVersion)) {
    reason = "is of another version of llmpress";
    return nullptr;
  }
  if (says(kModelKey) != model_state(checkpoint.path())) {
    reason = "was made from other files than the model has now";
    return nullptr;
  }
  std::istringstream hashes(says(kHashesKey));
  for (std::string line; std::getline(hashes, line);) {
    if (line.size() <= kContentHashDigits) continue;
    weights->hashes_.emplace(line.substr(kContentHashDigits + 1),
                             line.substr(0, kContentHashDigits));
  }
  return weights;
}

std::unique_ptr<LinearKernel> PrepackedWeights::kernel(
    const std::string& name, Isa isa, InputPrecision inputs) const {
  const TensorInfo* const info = reader_->find(name);
  if (info == nullptr) return nullptr;
  const TensorBytes octets = reader_->read(*info);
  const auto hash = hashes_.find(name);
  const auto place = reinterpret_cast<std::uintptr_t>(octets.bytes.data());
  if (hash == hashes_.end() || hash->second != content_hash(octets.bytes) ||
      place % kVectorBytes != 0) {
    fail(ErrorCode::kCorruptFile,
         "{}: '{}' is damaged; remove the file, and it is made anew", path_,
         name);
  }
  return make_linear_kernel(
      from_octets(octets.bytes, octets.owner, path_ + ": '" + name + "'"), isa,
      inputs);
}

std::unique_ptr<LinearKernel> PrepackedWeights::linear(
    const Architecture& arch, std::size_t layer, std::size_t linear, Isa isa,
    InputPrecision inputs) const {
  return kernel(arch.linear_name(layer, linear), isa, inputs);
}

std::unique_ptr<LinearKernel> PrepackedWeights::head(
    const Architecture& arch, Isa isa, InputPrecision inputs) const {
  return kernel(head_name(arch), isa, inputs);
}

void write_prepacked(const Checkpoint& checkpoint, const Architecture& arch,
                     ThreadPool& pool, const Progress& progress) {
  const fs::path path = resolve_path(prepacked_path(checkpoint.path()));
  check_replaceable(path, OutputKind::kSafetensors);
  const OutputLock lock(path);
  (void)remove_leftovers(path);
  const std::vector<NamedLinear> linears = linears_of(checkpoint, arch);
  PrepackedFile file(path, checkpoint.path(), linears);
  const std::size_t at_once = std::max<std::size_t>(pool.size(), 1);
  std::vector<std::vector<std::byte>> octets(at_once);
  std::vector<std::string> hashes(at_once);
  for (std::size_t first = 0; first < linears.size(); first += at_once) {
    report(progress, {"prepack", first, linears.size(), linears[first].name});
    const std::size_t count = std::min(at_once, linears.size() - first);
    pool.for_each(count, [&](std::size_t i) {
      const auto laid_out = lay_out(linears[first + i].read());
      octets[i] = laid_out ? to_octets(*laid_out) : std::vector<std::byte>();
      hashes[i] = content_hash(octets[i]);
    });
    for (std::size_t i = 0; i < count; ++i) {
      if (octets[i].empty()) continue;
      file.add(linears[first + i].name, octets[i], hashes[i]);
    }
  }
  file.finish();
  report(progress, {"prepack", linears.size(), linears.size(), ""});
}

std::shared_ptr<const PrepackedWeights> prepack(
    const Checkpoint& checkpoint, const Architecture& arch, ThreadPool& pool,
    const Progress& progress,
    const std::function<void(const std::string&)>& log) {
  const fs::path path = prepacked_path(checkpoint.path());
  std::string reason;
  if (auto weights = PrepackedWeights::open(checkpoint, reason)) return weights;
  log(formatted("{} {}: it is written", path, reason));
  write_prepacked(checkpoint, arch, pool, progress);
  auto weights = PrepackedWeights::open(checkpoint, reason);
  if (weights == nullptr) fail(ErrorCode::kIo, "{}: {}", path, reason);
  return weights;
}

}  // namespace llmpress
