// A zip archive of stored members, as torch.save and numpy write them: where
// each member lies in the mapped file, from the central directory at its end.
//
//   | local header, name, extra, octets | ...            a member
//   | central header, name, extra | ...                  one a member
//   | [zip64 end, its locator] | end of directory, comment |
//
// Sizes and offsets come from the directory (of zip64 where a field of 32 bits
// is full); the local header says only how long it is. PKWARE APPNOTE.TXT
// 6.3.10, sections 4.3.6 to 4.3.16 and 4.5.3. Nothing is decompressed.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmpress {

struct ZipMember {
  std::string name;
  std::size_t begin = 0, size = 0;  // octets [begin, begin + size) of the file
};

bool is_zip(std::span<const std::byte> file);  // by its first octets

// By name. Throws Error(kCorruptFile) for what lies outside the file, a name
// twice or a broken header, kUnsupported naming the member for one that is
// compressed or encrypted, or an archive of several volumes.
std::vector<ZipMember> zip_members(std::span<const std::byte> file,
                                   const std::string& where);

// nullptr: there is none.
const ZipMember* find_member(std::span<const ZipMember> members,
                             std::string_view name);

}  // namespace llmpress
