#include "formats/containers/torch_tensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/printable.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

std::size_t width_of(DType dtype) { return facts(dtype).bits / 8; }

// The product of the sizes must not overflow.
bool is_contiguous(const TorchTensor& tensor) {
  std::size_t stride = 1;
  for (std::size_t d = tensor.shape.size(); d-- > 0;) {
    if (tensor.shape[d] != 1 && tensor.strides[d] != stride) return false;
    stride *= tensor.shape[d];
  }
  return true;
}

// The largest element that a tensor of at least one has.
std::size_t last_element(const TorchTensor& tensor,
                         const std::string& subject) {
  std::size_t last = tensor.offset;
  for (std::size_t d = 0; d < tensor.shape.size(); ++d) {
    last = checked_add(
        last, checked_mul(tensor.shape[d] - 1, tensor.strides[d], subject),
        subject);
  }
  return last;
}

std::string subject_of_torch(const TorchTensor& tensor,
                             const std::string& where) {
  return where + ": tensor '" + printable(tensor.name) + "'";
}

std::size_t octets_of(const TorchTensor& tensor, const std::string& subject) {
  return checked_mul(checked_elements(tensor.shape, subject),
                     width_of(tensor.dtype), subject);
}

}  // namespace

TorchTensors::TorchTensors(TensorBytes file, const TorchState& state,
                           const StorageRanges& storages,
                           const std::string& where)
    : file_(std::move(file)) {
  std::vector<const TorchTensor*> sorted;
  for (const TorchTensor& tensor : state.tensors) sorted.push_back(&tensor);
  std::ranges::sort(sorted, {}, [](const TorchTensor* t) { return t->name; });
  const std::string name = std::filesystem::path(where).filename().string();
  for (const TorchTensor* const t : sorted) {
    views_.push_back(
        check(*t, storages.at(t->storage), file_.bytes.size(), where));
    infos_.push_back({.name = t->name,
                      .dtype = t->dtype,
                      .shape = t->shape,
                      .bytes = octets_of(*t, where),
                      .file = name});
  }
}

TorchTensors::View TorchTensors::check(const TorchTensor& tensor,
                                       const StorageRange& storage,
                                       std::size_t file_bytes,
                                       const std::string& where) {
  const std::string subject = subject_of_torch(tensor, where);
  const std::size_t octets = octets_of(tensor, subject);
  if (octets == 0) return {};
  const std::size_t last = last_element(tensor, subject);
  const std::size_t held = storage.size / width_of(tensor.dtype);
  if (last >= held) {
    fail(ErrorCode::kCorruptFile,
         "{}: reaches element {} of a storage of {} elements", subject, last,
         held);
  }
  // Strides of 0 make any size of nothing.
  if (octets > file_bytes) {
    fail(ErrorCode::kUnsupported,
         "{}: repeats {} octets of its storage to {}, more than the file has",
         subject, storage.size, octets);
  }
  return {.storage = storage,
          .offset = tensor.offset,
          .strides = tensor.strides,
          .in_one_piece = is_contiguous(tensor)};
}

// The elements in row-major order.
std::vector<std::byte> TorchTensors::gathered(
    const TensorInfo& info, const View& view,
    std::span<const std::byte> storage) {
  const std::size_t width = width_of(info.dtype);
  const std::size_t columns = info.shape.back(), step = view.strides.back();
  std::vector<std::byte> out(info.bytes);
  std::vector<std::size_t> index(info.shape.size() - 1, 0);
  for (std::size_t to = 0; to < out.size();) {
    std::size_t from = view.offset;
    for (std::size_t d = 0; d < index.size(); ++d) {
      from += index[d] * view.strides[d];
    }
    for (std::size_t c = 0; c < columns; ++c, to += width) {
      std::memcpy(out.data() + to, storage.data() + (from + c * step) * width,
                  width);
    }
    for (std::size_t d = index.size(); d-- > 0;) {
      if (++index[d] < info.shape[d]) break;
      index[d] = 0;
    }
  }
  return out;
}

TensorBytes TorchTensors::read(const TensorInfo& info) const {
  const TensorInfo& own = require(info.name);
  const View& view = views_[static_cast<std::size_t>(&own - infos_.data())];
  if (view.in_one_piece) {
    return mapped_part(file_,
                       view.storage.begin + view.offset * width_of(own.dtype),
                       own.bytes);
  }
  const TensorBytes storage =
      mapped_part(file_, view.storage.begin, view.storage.size);
  auto owner = std::make_shared<const std::vector<std::byte>>(
      gathered(own, view, storage.bytes));
  return {*owner, owner};
}

}  // namespace llmpress
