#include "formats/containers/zip_archive.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/printable.h"

namespace llmpress {
namespace {

constexpr std::uint32_t kLocalMagic = 0x04034b50, kCentralMagic = 0x02014b50,
                        kEndMagic = 0x06054b50, kEnd64Magic = 0x06064b50,
                        kLocatorMagic = 0x07064b50;
constexpr std::size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22,
                      kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr std::size_t kLargestComment = 0xffff;
constexpr std::uint32_t kFull32 = 0xffffffff;
constexpr std::uint16_t kFull16 = 0xffff, kZip64Extra = 1, kEncrypted = 1;

class ZipDirectory {
 public:
  ZipDirectory(std::span<const std::byte> file, const std::string& where)
      : file_(file), where_(where) {}

  std::vector<ZipMember> members() {
    find_directory();
    std::vector<ZipMember> members;
    std::size_t at = begin_;
    for (std::uint64_t i = 0; i < count_; ++i) {
      if (at >= end_) corrupt(formatted("ends after {} of {}", i, count_));
      members.push_back(read_member(at));
    }
    std::ranges::sort(members, {}, &ZipMember::name);
    const auto twice =
        std::ranges::adjacent_find(members, {}, &ZipMember::name);
    if (twice != members.end()) {
      corrupt("has '" + printable(twice->name) + "' twice");
    }
    return members;
  }

 private:
  [[noreturn]] void corrupt(const std::string& what) const {
    fail(ErrorCode::kCorruptFile, "{}: zip directory {}", where_, what);
  }

  template <class T>
  T number(std::size_t at) const {
    static_assert(std::is_unsigned_v<T>);
    if (at > file_.size() || sizeof(T) > file_.size() - at) {
      corrupt(formatted("reads octet {} of {}", at, file_.size()));
    }
    T value = 0;
    std::memcpy(&value, file_.data() + at, sizeof value);
    return value;
  }
  bool magic_at(std::size_t at, std::uint32_t magic) const {
    return file_.size() >= sizeof magic && at <= file_.size() - sizeof magic &&
           number<std::uint32_t>(at) == magic;
  }

  // The last end record whose comment reaches to the end of the file.
  std::size_t find_end() const {
    if (file_.size() < kEndBytes) corrupt("is missing: the file is cut off");
    const std::size_t last = file_.size() - kEndBytes;
    const std::size_t first = last - std::min(last, kLargestComment);
    for (std::size_t at = last + 1; at-- > first;) {
      if (magic_at(at, kEndMagic) &&
          number<std::uint16_t>(at + 20) == file_.size() - at - kEndBytes) {
        return at;
      }
    }
    corrupt("is missing: the file is cut off or no zip archive");
  }

  void find_directory() {
    const std::size_t end = find_end();
    std::size_t before = end;
    const auto volume = number<std::uint16_t>(end + 4);
    count_ = number<std::uint16_t>(end + 10);
    std::uint64_t size = number<std::uint32_t>(end + 12);
    std::uint64_t begin = number<std::uint32_t>(end + 16);
    if (end >= kLocatorBytes && magic_at(end - kLocatorBytes, kLocatorMagic)) {
      const auto at = number<std::uint64_t>(end - kLocatorBytes + 8);
      if (at > end - kLocatorBytes || !magic_at(at, kEnd64Magic) ||
          kEnd64Bytes > end - kLocatorBytes - at) {
        corrupt(formatted("has no zip64 record at octet {}", at));
      }
      before = at;
      count_ = number<std::uint64_t>(at + 32);
      size = number<std::uint64_t>(at + 40);
      begin = number<std::uint64_t>(at + 48);
    } else if (volume != 0 && volume != kFull16) {
      fail(ErrorCode::kUnsupported, "{}: a zip archive of several volumes",
           where_);
    }
    if (begin > before || size > before - begin) {
      corrupt(formatted("[{}, +{}) exceeds the file of {}", begin, size,
                        file_.size()));
    }
    begin_ = begin;
    end_ = begin + size;
    if (count_ > size / kCentralBytes) {
      corrupt(formatted("of {} octets cannot list {} members", size, count_));
    }
  }

  // Moves `at` behind the entry.
  ZipMember read_member(std::size_t& at) const {
    if (!magic_at(at, kCentralMagic) || kCentralBytes > end_ - at) {
      corrupt(formatted("has no entry at octet {}", at));
    }
    const std::size_t name_bytes = number<std::uint16_t>(at + 28);
    const std::size_t extra_bytes = number<std::uint16_t>(at + 30);
    const std::size_t all = kCentralBytes + name_bytes + extra_bytes +
                            number<std::uint16_t>(at + 32);
    if (all > end_ - at) {
      corrupt(formatted("entry at octet {} is cut off", at));
    }
    ZipMember member{.name = text(at + kCentralBytes, name_bytes)};
    check_storing(at, member.name);
    std::uint64_t stored = number<std::uint32_t>(at + 20);
    std::uint64_t size = number<std::uint32_t>(at + 24);
    std::uint64_t local = number<std::uint32_t>(at + 42);
    read_zip64(at + kCentralBytes + name_bytes, extra_bytes,
               {&size, &stored, &local});
    if (stored != size) {
      corrupt(formatted("stores the {} octets of '{}' in {}", size,
                        printable(member.name), stored));
    }
    member.begin = data_begin(local, member.name);
    member.size = size;
    if (member.begin > begin_ || size > begin_ - member.begin) {
      corrupt(formatted("member '{}': octets [{}, +{}) exceed the {} before it",
                        printable(member.name), member.begin, size, begin_));
    }
    at += all;
    return member;
  }

  void check_storing(std::size_t at, const std::string& name) const {
    const bool encrypted = (number<std::uint16_t>(at + 8) & kEncrypted) != 0;
    const auto method = number<std::uint16_t>(at + 10);
    if (!encrypted && method == 0) return;
    fail(ErrorCode::kUnsupported,
         "{}: member '{}' is {}; torch.save stores its members as they are",
         where_, printable(name), encrypted ? "encrypted" : "compressed");
  }

  // Fields that were full in 32 bits stand here in this order.
  void read_zip64(std::size_t at, std::size_t bytes,
                  std::initializer_list<std::uint64_t*> fields) const {
    const std::size_t end = at + bytes;
    while (end - at >= 4) {
      const auto id = number<std::uint16_t>(at);
      const std::size_t size = number<std::uint16_t>(at + 2);
      if (size > end - at - 4) {
        corrupt(formatted("extra field at octet {} is cut off", at));
      }
      if (id == kZip64Extra) {
        std::size_t next = at + 4;
        for (std::uint64_t* const field : fields) {
          if (*field != kFull32) continue;
          if (at + 4 + size - next < sizeof *field) {
            corrupt(formatted("zip64 field at octet {} is too short", at));
          }
          *field = number<std::uint64_t>(next);
          next += sizeof *field;
        }
        return;
      }
      at += 4 + size;
    }
  }

  std::size_t data_begin(std::uint64_t local, const std::string& name) const {
    if (local > begin_ || kLocalBytes > begin_ - local ||
        !magic_at(local, kLocalMagic)) {
      corrupt(formatted("member '{}': no header at octet {}", printable(name),
                        local));
    }
    return local + kLocalBytes + number<std::uint16_t>(local + 26) +
           number<std::uint16_t>(local + 28);
  }

  std::string text(std::size_t at, std::size_t size) const {
    return {reinterpret_cast<const char*>(file_.data()) + at, size};
  }

  std::span<const std::byte> file_;
  const std::string& where_;
  std::size_t begin_ = 0, end_ = 0;  // of the directory
  std::uint64_t count_ = 0;
};

}  // namespace

bool is_zip(std::span<const std::byte> file) {
  std::uint32_t magic = 0;
  if (file.size() < sizeof magic) return false;
  std::memcpy(&magic, file.data(), sizeof magic);
  return magic == kLocalMagic;
}

std::vector<ZipMember> zip_members(std::span<const std::byte> file,
                                   const std::string& where) {
  return ZipDirectory(file, where).members();
}

const ZipMember* find_member(std::span<const ZipMember> members,
                             std::string_view name) {
  const auto at = std::ranges::lower_bound(members, name, {}, &ZipMember::name);
  return at != members.end() && at->name == name ? &*at : nullptr;
}

}  // namespace llmpress
