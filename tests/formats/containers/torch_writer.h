// Files as torch.save makes them, put together octet by octet, so that tests
// can make those that it never would.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/formatted.h"
#include "formats/containers/tensor_io.h"

namespace llmpress::testing {

template <class T>
std::string octets(T value) {
  std::string text(sizeof value, '\0');
  std::memcpy(text.data(), &value, sizeof value);
  return text;
}

// --- opcodes of a pickle

inline std::string pickle_text(const std::string& text) {
  return "X" + octets(static_cast<std::uint32_t>(text.size())) + text;
}
inline std::string pickle_integer(std::int64_t value) {
  return std::string("\x8a\x08") + octets(value);
}
inline std::string pickle_global(const std::string& module,
                                 const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string pickle_tuple(const std::vector<std::string>& items) {
  std::string tuple = "(";
  for (const std::string& item : items) tuple += item;
  return tuple + "t";
}
inline std::string pickle_sizes(const std::vector<std::size_t>& sizes) {
  std::vector<std::string> items;
  for (const std::size_t size : sizes) {
    items.push_back(pickle_integer(static_cast<std::int64_t>(size)));
  }
  return pickle_tuple(items);
}
inline std::string pickle_call(const std::string& module,
                               const std::string& name,
                               const std::vector<std::string>& arguments) {
  return pickle_global(module, name) + pickle_tuple(arguments) + "R";
}
inline std::string pickle_of(const std::string& opcodes) {
  return "\x80\x02" + opcodes + ".";
}

// --- a tensor

inline std::string torch_storage(const std::string& kind,
                                 const std::string& key, std::size_t elements,
                                 const std::string& more = {}) {
  std::vector<std::string> id{
      pickle_text("storage"), pickle_global("torch", kind), pickle_text(key),
      pickle_text("cpu"), pickle_integer(static_cast<std::int64_t>(elements))};
  if (!more.empty()) id.push_back(more);
  return pickle_tuple(id) + "Q";
}
inline std::string torch_tensor(const std::string& storage, std::size_t offset,
                                const std::vector<std::size_t>& shape,
                                const std::vector<std::size_t>& strides) {
  return pickle_call(
      "torch._utils", "_rebuild_tensor_v2",
      {storage, pickle_integer(static_cast<std::int64_t>(offset)),
       pickle_sizes(shape), pickle_sizes(strides), "\x89",
       pickle_call("collections", "OrderedDict", {})});
}
inline std::vector<std::size_t> row_major(
    const std::vector<std::size_t>& shape) {
  std::vector<std::size_t> strides(shape.size(), 1);
  for (std::size_t d = shape.size(); d-- > 1;) {
    strides[d - 1] = strides[d] * shape[d];
  }
  return strides;
}
// Name and opcodes of each.
using PickledEntries = std::vector<std::pair<std::string, std::string>>;
inline std::string pickle_dict(const PickledEntries& entries) {
  std::string dict = "}(";
  for (const auto& [name, value] : entries) dict += pickle_text(name) + value;
  return dict + "u";
}

// --- the archive

struct ZipPart {
  std::string name, content;
  std::uint16_t method = 0;
};

// Members begin at multiples of 64. `wide`: sizes and offsets as zip64 has
// them.
inline std::string zip_archive(const std::vector<ZipPart>& parts,
                               bool wide = false) {
  using U16 = std::uint16_t;
  using U32 = std::uint32_t;
  const std::string crc = octets(U32{0});
  std::string file, directory;
  for (const ZipPart& part : parts) {
    const std::size_t local = file.size();
    const auto size = static_cast<U32>(part.content.size());
    const std::size_t head = 30 + part.name.size() + 4;
    const std::size_t padding = (64 - (local + head) % 64) % 64;
    const std::string extra =
        "FB" + octets(static_cast<U16>(padding)) + std::string(padding, 'Z');
    const std::string kind = octets(U16{45}) + octets(U16{0}) +
                             octets(part.method) + octets(U32{0}) + crc;
    const auto name_bytes = static_cast<U16>(part.name.size());
    file += "PK\x03\x04" + kind + octets(size) + octets(size) +
            octets(name_bytes) + octets(static_cast<U16>(extra.size())) +
            part.name + extra + part.content;
    const std::string full = octets(U32{0xffffffff});
    const std::string own = wide ? octets(U16{1}) + octets(U16{24}) +
                                       octets(std::uint64_t{size}) +
                                       octets(std::uint64_t{size}) +
                                       octets(static_cast<std::uint64_t>(local))
                                 : "";
    directory += "PK\x01\x02" + octets(U16{45}) + kind +
                 (wide ? full + full : octets(size) + octets(size)) +
                 octets(name_bytes) + octets(static_cast<U16>(own.size())) +
                 std::string(10, '\0') +
                 (wide ? full : octets(static_cast<U32>(local))) + part.name +
                 own;
  }
  const std::size_t begin = file.size();
  file += directory;
  if (wide) {
    const std::size_t record = file.size();
    const auto count = octets(static_cast<std::uint64_t>(parts.size()));
    file += "PK\x06\x06" + octets(std::uint64_t{44}) + std::string(12, '\0') +
            count + count +
            octets(static_cast<std::uint64_t>(directory.size())) +
            octets(static_cast<std::uint64_t>(begin));
    file += "PK\x06\x07" + octets(U32{0}) +
            octets(static_cast<std::uint64_t>(record)) + octets(U32{1});
  }
  const auto count = octets(static_cast<U16>(wide ? 0xffff : parts.size()));
  file += "PK\x05\x06" + std::string(4, '\0') + count + count +
          octets(wide ? U32{0xffffffff} : static_cast<U32>(directory.size())) +
          octets(wide ? U32{0xffffffff} : static_cast<U32>(begin)) +
          octets(U16{0});
  return file;
}

inline std::string torch_archive(const std::string& pickle,
                                 const std::vector<std::string>& storages) {
  std::vector<ZipPart> parts{{"m/data.pkl", pickle}, {"m/byteorder", "little"}};
  for (std::size_t s = 0; s < storages.size(); ++s) {
    parts.push_back({formatted("m/data/{}", s), storages[s]});
  }
  return zip_archive(parts);
}

// The tensors, F32, each with a storage of its own.
inline std::string torch_file(std::span<const NamedTensor> tensors) {
  PickledEntries entries;
  std::vector<std::string> storages;
  for (const NamedTensor& t : tensors) {
    const std::string storage = torch_storage(
        "FloatStorage", formatted("{}", storages.size()), t.bytes.size() / 4);
    entries.emplace_back(t.name,
                         torch_tensor(storage, 0, t.shape, row_major(t.shape)));
    storages.emplace_back(reinterpret_cast<const char*>(t.bytes.data()),
                          t.bytes.size());
  }
  return torch_archive(pickle_of(pickle_dict(entries)), storages);
}

inline TensorBytes bytes_of_text(const std::string& text) {
  auto owner = std::make_shared<const std::string>(text);
  return {std::as_bytes(std::span(*owner)), owner};
}

}  // namespace llmpress::testing
