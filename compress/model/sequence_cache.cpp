#include "compress/model/sequence_cache.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>

#include "compress/core/checked.h"
#include "compress/core/error.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

constexpr std::size_t kF = sizeof(float);

void put(std::span<std::byte> stored, std::size_t offset, float value) {
  std::memcpy(stored.data() + offset, &value, kF);
}
float get(std::span<const std::byte> stored, std::size_t offset) {
  float value = 0;
  std::memcpy(&value, stored.data() + offset, kF);
  return value;
}

// scale and min of the affine grid; NaN if x is not finite, which then is what
// decodes.
struct Grid {
  float scale = 0, min = 0;
};

Grid fit_grid(std::span<const float> x, int max_code) {
  float lo = std::numeric_limits<float>::infinity(), hi = -lo;
  for (const float v : x) {
    if (!std::isfinite(v)) return {std::nanf(""), std::nanf("")};
    lo = std::min(lo, v);
    hi = std::max(hi, v);
  }
  const double range = static_cast<double>(hi) - static_cast<double>(lo);
  return {static_cast<float>(range / max_code), lo};
}

std::uint8_t code_of(float x, const Grid& grid, int max_code) {
  if (!(grid.scale > 0)) return 0;
  const double steps =
      (static_cast<double>(x) - static_cast<double>(grid.min)) /
      static_cast<double>(grid.scale);
  return static_cast<std::uint8_t>(
      std::clamp(std::nearbyint(steps), 0.0, static_cast<double>(max_code)));
}

void encode_int8(std::span<const float> x, std::span<std::byte> stored) {
  const Grid grid = fit_grid(x, 255);
  put(stored, 0, grid.scale);
  put(stored, kF, grid.min);
  for (std::size_t i = 0; i < x.size(); ++i) {
    stored[2 * kF + i] = std::byte{code_of(x[i], grid, 255)};
  }
}

void encode_int4(std::span<const float> x, std::span<std::byte> stored) {
  const Grid grid = fit_grid(x, 15);
  put(stored, 0, grid.scale);
  put(stored, kF, grid.min);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::byte code{code_of(x[i], grid, 15)};
    std::byte& both = stored[2 * kF + i / 2];
    both = i % 2 == 0 ? code : both | (code << 4);
  }
}

void encode_fp8(std::span<const float> x, std::span<std::byte> stored) {
  float max = 0;
  for (const float v : x) {
    max = std::isfinite(v) ? std::max(max, std::abs(v)) : std::nanf("");
    if (std::isnan(max)) break;
  }
  const float scale = max / kE4M3Max;
  put(stored, 0, scale);
  for (std::size_t i = 0; i < x.size(); ++i) {
    // A scale that underflowed stands for zeros.
    const float y = scale > 0 ? x[i] / scale : 0.0f;
    stored[kF + i] = std::byte{e4m3_from_float(y)};
  }
}

}  // namespace

std::size_t kv_bytes(KvFormat format, std::size_t head_dim) {
  switch (format.type) {
    case KvType::kF32:
      return head_dim * kF;
    case KvType::kInt8:
      return 2 * kF + head_dim;
    case KvType::kFp8:
      return kF + head_dim;
    case KvType::kInt4:
      return 2 * kF + ceil_div(head_dim, 2);
  }
  return 0;
}

void encode_kv(KvFormat format, std::span<const float> x,
               std::span<std::byte> stored) {
  assert(stored.size() == kv_bytes(format, x.size()));
  switch (format.type) {
    case KvType::kF32:
      std::memcpy(stored.data(), x.data(), x.size_bytes());
      return;
    case KvType::kInt8:
      return encode_int8(x, stored);
    case KvType::kFp8:
      return encode_fp8(x, stored);
    case KvType::kInt4:
      return encode_int4(x, stored);
  }
}

void decode_kv(KvFormat format, std::span<const std::byte> stored,
               std::span<float> x) {
  assert(stored.size() == kv_bytes(format, x.size()));
  if (format.type == KvType::kF32) {
    std::memcpy(x.data(), stored.data(), x.size_bytes());
    return;
  }
  const float scale = get(stored, 0);
  if (format.type == KvType::kFp8) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] =
          scale * e4m3_to_float(std::to_integer<std::uint8_t>(stored[kF + i]));
    }
    return;
  }
  const float min = get(stored, kF);
  const auto codes = stored.subspan(2 * kF);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const int code =
        format.type == KvType::kInt8
            ? std::to_integer<int>(codes[i])
            : std::to_integer<int>(codes[i / 2]) >> (i % 2 * 4) & 15;
    x[i] = min + scale * static_cast<float>(code);
  }
}

void round_kv_in_place(KvFormat format, std::size_t head_dim,
                       MatrixView<float> X) {
  if (format.type == KvType::kF32) return;
  assert(X.cols() % head_dim == 0);
  std::vector<std::byte> stored(kv_bytes(format, head_dim));
  for (std::size_t i = 0; i < X.size(); i += head_dim) {
    const auto head = X.data().subspan(i, head_dim);
    encode_kv(format, head, stored);
    decode_kv(format, stored, head);
  }
}

KvCache::KvCache(const std::vector<std::vector<CacheSlot>>& slots,
                 std::size_t capacity, KvFormat format)
    : capacity_(capacity), format_(format) {
  for (const std::vector<CacheSlot>& layer : slots) {
    std::vector<Store>& stores = layers_.emplace_back();
    for (const CacheSlot& slot : layer) {
      const auto bytes = [&](std::size_t dim) {
        return checked_mul(capacity, slot.kv_heads * kv_bytes(format, dim),
                           "KV cache");
      };
      Store& store = stores.emplace_back();
      store.slot = slot;
      if (slot.kv_heads != 0) {
        store.keys.resize(bytes(slot.key_dim));
        store.values.resize(bytes(slot.value_dim));
      }
      store.state.resize(slot.state);
    }
  }
}

std::size_t KvCache::bytes() const {
  std::size_t total = 0;
  for (const auto& layer : layers_) {
    for (const Store& store : layer) {
      total += store.keys.size() + store.values.size() +
               store.state.size() * sizeof(float);
    }
  }
  return total;
}

void KvCache::append(CachePlace place, ConstMatrixView K, ConstMatrixView V) {
  Store& store = at(place);
  assert(K.cols() == store.slot.kv_heads * store.slot.key_dim &&
         V.cols() == store.slot.kv_heads * store.slot.value_dim &&
         K.rows() == V.rows());
  if (K.rows() > capacity_ - tokens_) {
    fail(ErrorCode::kInvalidArgument,
         "KV cache: {} + {} tokens exceed its capacity {}", tokens_, K.rows(),
         capacity_);
  }
  const auto write = [&](ConstMatrixView rows, std::size_t dim,
                         std::vector<std::byte>& to) {
    const std::size_t step = kv_bytes(format_, dim);
    std::span<std::byte> end =
        std::span(to).subspan(tokens_ * store.slot.kv_heads * step);
    for (std::size_t i = 0; i < rows.size(); i += dim) {
      encode_kv(format_, rows.data().subspan(i, dim), end.first(step));
      end = end.subspan(step);
    }
  };
  write(K, store.slot.key_dim, store.keys);
  write(V, store.slot.value_dim, store.values);
}

void KvCache::advance(std::size_t n) {
  assert(n <= capacity_ - tokens_);
  tokens_ += n;
}

void KvCache::truncate(std::size_t tokens) {
  if (tokens >= tokens_) return;
  for (const auto& layer : layers_) {
    for (const Store& store : layer) {
      if (store.state.empty()) continue;
      throw Error(ErrorCode::kInvalidArgument,
                  "a recurrent state cannot be taken back to an earlier token");
    }
  }
  tokens_ = tokens;
}

void KvCache::read(CachePlace place, std::size_t begin, MatrixView<float> K,
                   MatrixView<float> V) const {
  const Store& store = at(place);
  assert(begin + K.rows() <= capacity_ && begin + V.rows() <= capacity_);
  const auto load = [&](const std::vector<std::byte>& from, std::size_t dim,
                        MatrixView<float> rows) {
    const std::size_t step = kv_bytes(format_, dim);
    auto rest = std::span(from).subspan(begin * store.slot.kv_heads * step);
    for (std::size_t i = 0; i < rows.size(); i += dim) {
      decode_kv(format_, rest.first(step), rows.data().subspan(i, dim));
      rest = rest.subspan(step);
    }
  };
  load(store.keys, store.slot.key_dim, K);
  load(store.values, store.slot.value_dim, V);
}

KvView KvCache::keys(CachePlace place) const {
  assert(format_.type == KvType::kF32);
  const Store& store = at(place);
  return {KvType::kF32, store.keys.data(),
          store.slot.kv_heads * kv_bytes(format_, store.slot.key_dim)};
}

KvView KvCache::values(CachePlace place) const {
  assert(format_.type == KvType::kF32);
  const Store& store = at(place);
  return {KvType::kF32, store.values.data(),
          store.slot.kv_heads * kv_bytes(format_, store.slot.value_dim)};
}

std::span<float> KvCache::state(CachePlace place) { return at(place).state; }

}  // namespace llmpress
