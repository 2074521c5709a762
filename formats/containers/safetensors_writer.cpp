// Writing; reading is in safetensors.cpp.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <unordered_set>

#include "compress/core/checked.h"
#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "formats/containers/safetensors.h"

namespace llmpress {
namespace {

using json = nlohmann::json;

std::string json_string(const std::string& name) {
  try {
    return json(name).dump();
  } catch (const json::exception&) {
    throw Error(ErrorCode::kInvalidArgument, "a tensor's name is not UTF-8");
  }
}

}  // namespace

TensorInfo info_of(const NamedTensor& tensor) {
  const std::string where = "tensor '" + tensor.name + "'";
  const std::size_t elements = checked_elements(tensor.shape, where);
  const std::size_t wanted = bytes_of(tensor.dtype, elements);
  if (tensor.bytes.size() != wanted ||
      elements * facts(tensor.dtype).bits % 8 != 0) {
    fail(ErrorCode::kInvalidArgument, "{}: has {} octets, its shape needs {}",
         where, tensor.bytes.size(), wanted);
  }
  return {.name = tensor.name,
          .dtype = tensor.dtype,
          .shape = tensor.shape,
          .bytes = tensor.bytes.size()};
}

std::vector<std::size_t> safetensors_order(
    std::span<const TensorInfo> tensors) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (tensors[a].dtype != tensors[b].dtype) {
      return tensors[a].dtype > tensors[b].dtype;
    }
    return tensors[a].name < tensors[b].name;
  });
  return order;
}

std::string safetensors_header(
    std::span<const TensorInfo> tensors,
    const std::map<std::string, std::string>& metadata) {
  return safetensors_header(tensors, metadata, safetensors_order(tensors), 0);
}

std::string safetensors_header(
    std::span<const TensorInfo> tensors,
    const std::map<std::string, std::string>& metadata,
    std::span<const std::size_t> order, std::size_t room) {
  // ordered_json keeps the reference's order of keys.
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::unordered_set<std::string> names{"__metadata__"};
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::string text = header.dump();
  text.pop_back();  // '}', put back below: one entry at a time is linear
  std::size_t at = 0;
  for (const std::size_t i : order) {
    const TensorInfo& t = tensors[i];
    if (!names.insert(t.name).second) {
      fail(ErrorCode::kInvalidArgument, "two tensors are named '{}'", t.name);
    }
    nlohmann::ordered_json entry;
    entry["dtype"] = facts(t.dtype).name;
    entry["shape"] = t.shape;
    entry["data_offsets"] = {at, at + t.bytes};
    at += t.bytes;
    if (text.size() > 1) text += ',';
    text += json_string(t.name) + ":" + entry.dump();
  }
  text += '}';
  const std::size_t wanted = std::max(text.size(), room < 8 ? 0 : room - 8);
  text.resize(ceil_div(wanted, 8) * 8, ' ');
  if (text.size() > kMaxHeaderBytes) {
    throw Error(ErrorCode::kInvalidArgument,
                "safetensors header would exceed 100 000 000 octets");
  }
  const std::uint64_t length = text.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, sizeof length);
  return out + text;
}

std::string write_safetensors(
    std::span<const NamedTensor> tensors,
    const std::map<std::string, std::string>& metadata) {
  std::vector<TensorInfo> infos;
  for (const NamedTensor& t : tensors) infos.push_back(info_of(t));
  std::string out = safetensors_header(infos, metadata);
  for (const std::size_t i : safetensors_order(infos)) {
    out.append(reinterpret_cast<const char*>(tensors[i].bytes.data()),
               tensors[i].bytes.size());
  }
  return out;
}

}  // namespace llmpress
