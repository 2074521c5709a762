#include "formats/checkpoints/written_hashes.h"

#include <algorithm>
#include <set>
#include <span>
#include <sstream>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/containers/file_range.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/sharded.h"
#include "formats/files/content_hash.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBetween = "  ";

std::string front_of_tensors() { return std::string(kSingleFileName) + "/"; }

// Lines in the order of the hashes.
class HashLines {
 public:
  void add(std::string_view name, const std::string& hash) {
    lines_.insert(formatted("{}{}{}\n", hash, kBetween, name));
  }
  void add_tensor(std::string_view tensor, const std::string& hash) {
    add(front_of_tensors() + std::string(tensor), hash);
  }

  std::string text() const {
    std::string text;
    for (const std::string& line : lines_) text += line;
    return text;
  }

 private:
  std::set<std::string> lines_{};
};

void add_stored(const fs::path& path, HashLines& lines) {
  const TensorBytes file = map_file(path);
  const SafetensorsHeader header = parse_safetensors(file.bytes, path.string());
  std::size_t header_bytes = file.bytes.size();
  for (std::size_t i = 0; i < header.tensors.size(); ++i) {
    const TensorInfo& info = header.tensors[i];
    const TensorBytes octets = mapped_part(file, header.begins[i], info.bytes);
    lines.add_tensor(info.name, content_hash_of_mapped(octets));
    header_bytes = std::min(header_bytes, header.begins[i]);
  }
  lines.add_tensor("", content_hash(file.bytes.first(header_bytes)));
}

std::string hashes_found(const fs::path& folder) {
  HashLines lines;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name == kSingleFileName) {
      add_stored(entry.path(), lines);
    } else if (name != kHashesFile) {
      lines.add(name, content_hash_of_file(entry.path()));
    }
  }
  return lines.text();
}

}  // namespace

std::string hash_of_tensor(const TensorReader& reader, const TensorInfo& info) {
  const TensorBytes stored = reader.read(info);
  return place_of(reader, info).file.empty() ? content_hash(stored.bytes)
                                             : content_hash_of_mapped(stored);
}

std::string written_hashes(std::string_view header, const TensorHashes& tensors,
                           const std::map<std::string, std::string>& files) {
  HashLines lines;
  lines.add_tensor("", content_hash(header));
  for (const auto& [name, hash] : tensors) lines.add_tensor(name, hash);
  for (const auto& [name, content] : files) {
    lines.add(name, content_hash(std::string_view(content)));
  }
  return lines.text();
}

bool is_as_written(const fs::path& folder) {
  try {
    const std::string written = read_file(folder / kHashesFile);
    return written == hashes_found(folder);
  } catch (const Error&) {
    return false;  // a file that is missing, or a header that says nothing
  }
}

TensorHashes read_tensor_hashes(const fs::path& folder) {
  TensorHashes hashes;
  const std::string front = std::string(kBetween) + front_of_tensors();
  std::istringstream lines(read_file(folder / kHashesFile));
  for (std::string line; std::getline(lines, line);) {
    const std::string_view text(line);
    if (!text.substr(std::min(text.size(), kContentHashDigits))
             .starts_with(front)) {
      continue;
    }
    const std::string name(text.substr(kContentHashDigits + front.size()));
    if (!name.empty()) hashes[name] = text.substr(0, kContentHashDigits);
  }
  return hashes;
}

void check_linear(const Checkpoint& checkpoint, std::string_view linear,
                  const TensorHashes& hashes) {
  const std::string prefix = std::string(linear) + ".";
  const auto tensors = checkpoint.tensors().tensors();
  auto at = std::ranges::lower_bound(tensors, prefix, {}, &TensorInfo::name);
  for (; at != tensors.end() && at->name.starts_with(prefix); ++at) {
    const auto hash = hashes.find(at->name);
    if (hash != hashes.end() &&
        hash_of_tensor(checkpoint.tensors(), *at) != hash->second) {
      fail(ErrorCode::kIo, "{}: tensor '{}' has other octets than were written",
           checkpoint.path(), at->name);
    }
  }
}

}  // namespace llmpress
