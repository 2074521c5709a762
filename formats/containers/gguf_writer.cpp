// Writing; reading is in gguf.cpp.
#include <array>
#include <cstring>
#include <type_traits>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/gguf.h"

namespace llmpress {
namespace {

template <class T>
void put(std::string& out, T value) {
  std::array<char, sizeof(T)> octets{};
  std::memcpy(octets.data(), &value, sizeof value);
  out.append(octets.data(), octets.size());
}

void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}

void put_array(std::string& out, const GgufArray& array);

template <class T>
void put_element(std::string& out, const T& element) {
  if constexpr (std::is_same_v<T, std::string>) {
    put_text(out, element);
  } else if constexpr (std::is_same_v<T, GgufArray>) {
    put_array(out, element);
  } else if constexpr (std::is_same_v<T, bool>) {
    put(out, static_cast<std::uint8_t>(element));
  } else {
    put(out, element);
  }
}

void put_array(std::string& out, const GgufArray& array) {
  put(out, static_cast<std::uint32_t>(array.elements.index()));
  std::visit(
      [&]<class T>(const std::vector<T>& elements) {
        put(out, static_cast<std::uint64_t>(elements.size()));
        for (const auto& element : elements) put_element<T>(out, element);
      },
      array.elements);
}

void put_value(std::string& out, const GgufValue& value) {
  put(out, static_cast<std::uint32_t>(value.index()));
  std::visit(
      [&]<class T>(const T& v) {
        if constexpr (std::is_same_v<T, std::shared_ptr<const GgufArray>>) {
          put_array(out, *v);
        } else {
          put_element<T>(out, v);
        }
      },
      value);
}

void put_tensor(std::string& out, const GgufTensor& tensor,
                std::size_t offset) {
  put_text(out, tensor.name);
  put(out, static_cast<std::uint32_t>(tensor.shape.size()));
  for (auto d = tensor.shape.rbegin(); d != tensor.shape.rend(); ++d) {
    put(out, static_cast<std::uint64_t>(*d));
  }
  put(out, static_cast<std::uint32_t>(tensor.type));
  put(out, static_cast<std::uint64_t>(offset));
}

}  // namespace

std::string_view gguf_padding(std::size_t bytes, std::size_t alignment) {
  static const std::string zeros(4096, '\0');
  return std::string_view(zeros).substr(
      0, ceil_div(bytes, alignment) * alignment - bytes);
}

std::string gguf_header(const GgufMetadata& metadata,
                        std::span<GgufTensor> tensors) {
  const std::size_t alignment = gguf_alignment(metadata);
  std::string out = "GGUF";
  put(out, kGgufVersion);
  put(out, static_cast<std::uint64_t>(tensors.size()));
  put(out, static_cast<std::uint64_t>(metadata.all().size()));
  for (const auto& [key, value] : metadata.all()) {
    put_text(out, key);
    put_value(out, value);
  }
  std::size_t offset = 0;
  for (GgufTensor& tensor : tensors) {
    tensor.bytes =
        gguf_bytes(tensor.type, tensor.shape, "tensor '" + tensor.name + "'");
    tensor.begin = offset;
    put_tensor(out, tensor, offset);
    offset = checked_add(offset, tensor.bytes, tensor.name);
    offset += gguf_padding(offset, alignment).size();
  }
  out += gguf_padding(out.size(), alignment);
  for (GgufTensor& tensor : tensors) tensor.begin += out.size();
  return out;
}

}  // namespace llmpress
