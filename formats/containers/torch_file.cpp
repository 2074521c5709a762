#include "formats/containers/torch_file.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/printable.h"
#include "formats/containers/torch_pickle.h"
#include "formats/containers/torch_tensors.h"
#include "formats/containers/zip_archive.h"
#include "formats/files/foreign_file.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// Pickle of the number 0x1950a86a20f9469cfc6c, behind its opcode PROTO.
constexpr std::string_view kLegacyMagic(
    "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20"
    "\x6a\xa8\x50\x19.",
    13);
constexpr std::size_t kMagicAt = 2,
                      kLegacyHead = kMagicAt + kLegacyMagic.size();
constexpr std::int64_t kLegacyVersion = 1001;

bool is_legacy(std::span<const std::byte> file) {
  return file.size() >= kLegacyHead && file[0] == std::byte{0x80} &&
         std::memcmp(file.data() + kMagicAt, kLegacyMagic.data(),
                     kLegacyMagic.size()) == 0;
}

// --- in a zip archive

std::span<const std::byte> octets_of(std::span<const std::byte> file,
                                     const ZipMember& member) {
  return file.subspan(member.begin, member.size);
}

// What stands in front of "/data.pkl", with the slash.
std::string archive_root(std::span<const ZipMember> members,
                         const std::string& where) {
  constexpr std::string_view kPickleName = "/data.pkl";
  for (const ZipMember& member : members) {
    const std::string& name = member.name;
    if (name.ends_with(kPickleName) &&
        name.find('/') == name.size() - kPickleName.size()) {
      return name.substr(0, name.size() - kPickleName.size() + 1);
    }
  }
  fail(ErrorCode::kUnsupported,
       "{}: is a zip archive without data.pkl, not a file of torch.save",
       where);
}

void check_archive(std::span<const std::byte> file,
                   std::span<const ZipMember> members, const std::string& root,
                   const std::string& where) {
  if (find_member(members, root + "constants.pkl") != nullptr) {
    fail(ErrorCode::kUnsupported,
         "{}: is a TorchScript program, not a file of torch.save; save its "
         "state_dict()",
         where);
  }
  const ZipMember* const order = find_member(members, root + "byteorder");
  if (order == nullptr) return;  // torch before 2.1 wrote none
  const auto octets = octets_of(file, *order);
  const std::string_view text(reinterpret_cast<const char*>(octets.data()),
                              octets.size());
  if (text == "little") return;
  fail(ErrorCode::kUnsupported,
       "{}: byteorder is '{}'; numbers are read in little-endian order only",
       where, printable(text.substr(0, 20)));
}

std::unique_ptr<TensorReader> read_archive(TensorBytes file,
                                           const std::string& where) {
  const std::vector<ZipMember> members = zip_members(file.bytes, where);
  const std::string root = archive_root(members, where);
  check_archive(file.bytes, members, root, where);
  const std::string place = where + ": " + root + "data.pkl";
  const Pickle pickle = read_pickle(
      octets_of(file.bytes, *find_member(members, root + "data.pkl")),
      torch_globals(), place);
  const TorchState state = read_torch_state(pickle, place);
  StorageRanges storages;
  for (const auto& [key, size] : state.storages) {
    const std::string name = root + "data/" + std::string(key);
    const ZipMember* const member = find_member(members, name);
    if (member == nullptr || member->size != size) {
      fail(ErrorCode::kCorruptFile,
           "{}: storage '{}' needs {} octets, the archive has {}", where,
           printable(name), size,
           member == nullptr ? "none" : formatted("{}", member->size));
    }
    storages[key] = {member->begin, member->size};
  }
  return std::make_unique<TorchTensors>(std::move(file), state, storages,
                                        where);
}

// --- one behind the other

class LegacyFile {
 public:
  LegacyFile(TensorBytes file, const std::string& where)
      : file_(std::move(file)), where_(where) {}

  std::unique_ptr<TensorReader> read() {
    const Pickle version = next("version");
    const PickleValue& number = version[version.root];
    if (number.kind != PickleKind::kInteger ||
        number.integer != kLegacyVersion) {
      corrupt(formatted("is not of version {}", kLegacyVersion));
    }
    check_byte_order(next("system"));
    const std::string place = formatted("{}: dict at octet {}", where_, at_);
    const Pickle dict = next("dict");
    const TorchState state = read_torch_state(dict, place);
    const Pickle keys = next("keys");
    const StorageRanges storages = place_storages(keys, state);
    return std::make_unique<TorchTensors>(std::move(file_), state, storages,
                                          where_);
  }

 private:
  [[noreturn]] void corrupt(const std::string& what) const {
    fail(ErrorCode::kCorruptFile, "{}: {}", where_, what);
  }

  Pickle next(const char* what) {
    Pickle pickle =
        read_pickle(file_.bytes.subspan(at_), torch_globals(),
                    formatted("{}: {} at octet {}", where_, what, at_));
    at_ += pickle.bytes;
    return pickle;
  }

  void check_byte_order(const Pickle& system) const {
    const PickleValue& root = system[system.root];
    for (std::size_t i = 0; i + 1 < root.items.size(); i += 2) {
      if (system[root.items[i]].text == "little_endian" &&
          system[root.items[i + 1]].integer == 1) {
        return;
      }
    }
    fail(ErrorCode::kUnsupported,
         "{}: does not say little_endian; numbers are read in that order only",
         where_);
  }

  StorageRanges place_storages(const Pickle& keys, const TorchState& state) {
    StorageRanges storages;
    const PickleValue& list = keys[keys.root];
    if (list.kind != PickleKind::kList) corrupt("has no list of storages");
    for (const PickleRef item : list.items) {
      const auto found = state.storages.find(keys[item].text);
      if (found == state.storages.end() || storages.contains(found->first)) {
        corrupt("lists storage '" + printable(keys[item].text) +
                "', which no tensor has, or twice");
      }
      storages[found->first] = next_storage(found->first, found->second);
    }
    for (const auto& [key, size] : state.storages) {
      if (!storages.contains(key)) {
        corrupt("does not list storage '" + printable(key) + "'");
      }
    }
    return storages;
  }

  // `size` octets behind the count of their elements.
  StorageRange next_storage(std::string_view key, std::size_t size) {
    std::uint64_t count = 0;
    const std::size_t left = file_.bytes.size() - at_;
    if (left < sizeof count || left - sizeof count < size) {
      corrupt(formatted("storage '{}' at octet {} of {} octets is cut off",
                        printable(key), at_, size));
    }
    std::memcpy(&count, file_.bytes.data() + at_, sizeof count);
    if (count > size || (count == 0 ? size != 0 : size % count != 0)) {
      corrupt(formatted("storage '{}' at octet {}: {} elements in {} octets",
                        printable(key), at_, count, size));
    }
    const StorageRange range{at_ + sizeof count, size};
    at_ = range.begin + size;
    return range;
  }

  TensorBytes file_;
  const std::string& where_;
  std::size_t at_ = kLegacyHead;
};

// --- in a folder

// What a trainer leaves beside a model.
constexpr std::array<std::string_view, 6> kTrainersFiles{
    "training_args", "optimizer", "scheduler",
    "rng_state",     "scaler",    "adapter_"};

bool may_be_weights(const fs::path& file) {
  const std::string name = file.filename().string();
  const std::string end = file.extension().string();
  return (end == ".bin" || end == ".pt" || end == ".pth") &&
         std::ranges::none_of(kTrainersFiles, [&](std::string_view own) {
           return name.starts_with(own);
         });
}

}  // namespace

bool is_torch_file(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return false;  // a pipe would wait
  std::array<char, 16> head{};
  std::ifstream stream(path, std::ios::binary);
  stream.read(head.data(), head.size());
  const auto octets = std::as_bytes(
      std::span(head).first(static_cast<std::size_t>(stream.gcount())));
  return is_zip(octets) || is_legacy(octets);
}

std::unique_ptr<TensorReader> read_torch_file(TensorBytes file,
                                              const std::string& where) {
  if (is_zip(file.bytes)) return read_archive(std::move(file), where);
  if (is_legacy(file.bytes)) return LegacyFile(std::move(file), where).read();
  const std::string foreign = describe_foreign(file.bytes);
  fail(ErrorCode::kUnsupported, "{}: is {}", where,
       foreign.empty() ? "no file of torch.save: neither a zip archive nor the "
                         "pickles of torch before 1.6"
                       : foreign);
}

std::unique_ptr<TensorReader> open_torch_file(const fs::path& path) {
  return read_torch_file(map_file(path), path.string());
}

std::optional<fs::path> find_torch_weights(const fs::path& folder) {
  for (const char* name :
       {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (path_exists(folder / name)) return folder / name;
  }
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (may_be_weights(entry.path()) && is_torch_file(entry.path())) {
      found.push_back(entry.path());
    }
  }
  if (found.empty()) return std::nullopt;
  std::ranges::sort(found);
  if (found.size() > 1) {
    fail(ErrorCode::kInvalidInput,
         "{}: holds '{}' and '{}' and no pytorch_model.bin.index.json that "
         "says which is meant",
         folder, found[0].filename(), found[1].filename());
  }
  return found[0];
}

}  // namespace llmpress
