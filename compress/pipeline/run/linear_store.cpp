#include "compress/pipeline/run/linear_store.h"

#include <string>
#include <string_view>
#include <system_error>

#include "compress/core/formatted.h"
#include "compress/pipeline/run/outcome_bytes.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/files/atomic_file.h"
#include "formats/files/content_hash.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// In front of the bytes: their hash.
constexpr std::size_t kHash = kContentHashDigits;

}  // namespace

fs::path LinearStore::path_of(std::size_t linear) const {
  return folder_ / std::to_string(linear);
}

bool LinearStore::has(std::size_t linear) const {
  const fs::path path = path_of(linear);
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return false;
  const std::string file = read_file(path);
  if (file.size() > kHash &&
      file.substr(0, kHash) ==
          content_hash(std::string_view(file).substr(kHash))) {
    return true;
  }
  fs::remove(path, ignored);
  return false;
}

LinearOutcome LinearStore::load(std::size_t linear) const {
  const std::string file = read_file(path_of(linear));
  return outcome_from_bytes(std::string_view(file).substr(kHash));
}

void LinearStore::save(std::size_t linear, const LinearWeights& weights,
                       const LayerReport& report) const {
  std::error_code error;
  fs::create_directories(folder_, error);
  const fs::path path = path_of(linear);
  fs::path unfinished = path;
  unfinished += ".unfinished";
  if (!error) {
    fs::remove(unfinished, error);  // of a run that ended in between
    const std::string bytes = to_bytes(weights, report);
    OutputFile file(unfinished);
    file.write(content_hash(std::string_view(bytes)));
    file.write(bytes);
    file.close_unflushed();
    fs::rename(unfinished, path, error);
  }
  if (error) fail(ErrorCode::kIo, "{}: {}", path, error.message());
}

}  // namespace llmpress
