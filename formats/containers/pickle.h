// A Python pickle as plain values: what it would build is written down, and
// nothing is called. Opcodes of protocols 2 to 5 (Lib/pickletools.py) that
// build numbers, texts, tuples, lists, dicts and sets, name a global, call one
// or ask for a persistent object. A global that the caller does not list is
// refused where it is named, as is every other opcode.
//
// Every opcode makes at most one value and no value is copied, so that memory
// is a multiple of the pickle's size whatever its memo says; nothing recurses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmpress {

using PickleRef = std::uint32_t;  // index in Pickle::values

enum class PickleKind {
  kNone,
  kBool,        // integer 0 or 1
  kInteger,     // of up to 64 bits
  kReal,        // its value is not kept
  kText,        // text, as it lies in the pickle
  kBytes,       // likewise; also integers of more than 64 bits
  kTuple,       // items; also frozen sets
  kList,        // items; also sets
  kDict,        // items: key, value, key, value, ...; also OrderedDict
  kGlobal,      // text: "torch.FloatStorage"
  kCall,        // items: what is called, the tuple of its arguments
  kPersistent,  // items: what it is known by
};

struct PickleValue {
  PickleKind kind = PickleKind::kNone;
  std::size_t offset = 0;  // of the opcode that made it, in the pickle
  std::int64_t integer = 0;
  std::string_view text{};
  std::vector<PickleRef> items{};
};

struct Pickle {
  std::vector<PickleValue> values{};
  PickleRef root = 0;
  std::size_t bytes = 0;  // up to and with its STOP

  const PickleValue& operator[](PickleRef ref) const { return values[ref]; }
};

// A model of a hundred thousand tensors needs less.
inline constexpr std::size_t kMaxPickleBytes = 64u << 20,
                             kMaxPickleValues = 4u << 20;

// The pickle that `octets` begin with, within these limits; `octets` and
// `globals` ("module.name") must outlive it. `where` stands in front of
// messages, which have the opcode's offset. Throws Error(kUnsupported) for a
// global that is not in `globals`, naming it, and for an opcode that plain
// values do not need; kCorruptFile for a pickle that is cut off or whose
// opcodes do not fit together.
Pickle read_pickle(std::span<const std::byte> octets,
                   std::span<const std::string_view> globals,
                   const std::string& where);

}  // namespace llmpress
