// The processes that carry out one command together, numbered from 0: one by
// default, several where a launcher such as mpirun started them. All of them run
// the same program; what follows is collective unless it says otherwise: every
// rank calls it, in the same order.
//
// Promise to whoever uses it: nothing here depends on timing, so that what is
// added up in rank order is the same bytes at any number of ranks as long as
// the parts are.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llmpress {

// How bytes travel between ranks. Only the thread that made it may call it.
class RankTransport {
 public:
  virtual ~RankTransport() = default;
  virtual std::size_t rank() const = 0;
  virtual std::size_t size() const = 0;
  // Fills the `bytes` of every rank with those of `root`.
  virtual void broadcast(std::span<std::byte> bytes, std::size_t root) = 0;
  // to[r] goes to rank r, from[r] is filled with what rank r sends here; the
  // sizes of the two ends agree, a rank's own are empty.
  virtual void exchange(std::span<const std::span<const std::byte>> to,
                        std::span<const std::span<std::byte>> from) = 0;
  // Between the ranks that pass the same color, in the order that they have
  // here. Collective.
  virtual std::shared_ptr<RankTransport> split(std::size_t color) = 0;
  // How long a call waits for another rank before it throws Error(kIo) with that
  // rank's number, also of what is split off later; 0: for ever.
  virtual void set_patience(std::chrono::seconds patience) = 0;
};

// Bytes of this rank, each counted once for every rank that it goes to:
// however the transport forwards them.
struct RankTraffic {
  std::uint64_t sent = 0, received = 0;
};

// A handle; copies share one transport and its traffic.
class Ranks {
 public:
  Ranks() = default;  // one process
  explicit Ranks(std::shared_ptr<RankTransport> transport);

  std::size_t rank() const { return rank_; }
  std::size_t size() const { return size_; }
  bool is_first() const { return rank_ == 0; }
  bool is_spread() const { return size_ > 1; }
  // Who works on item `index` of work that is dealt out in turn.
  std::size_t owner(std::size_t index) const { return index % size_; }
  bool owns(std::size_t index) const { return owner(index) == rank_; }

  // Returns when all ranks have come so far.
  void barrier() const;
  // The bytes of `root`; what the others pass is not looked at.
  std::string broadcast(std::string bytes, std::size_t root = 0) const;
  void broadcast(std::span<float> numbers, std::size_t root) const;
  // Of all ranks, in rank order, on every rank.
  std::vector<std::string> gather(std::string_view bytes) const;
  // The same on the first rank; the others get their own alone.
  std::vector<std::string> gather_on_first(std::string_view bytes) const;
  // Fills `whole`, which all ranks pass in the same size, with each rank's
  // stretch of it: share_of(its size, grain, ...).
  template <class T>
  void join(std::span<T> whole, std::size_t grain) const;
  // Every rank's bytes to the one behind it: gives those of the rank before,
  // nothing to the first.
  std::string shift(std::string_view bytes) const;
  // The ranks that pass the same color, in the order that they have here.
  Ranks split(std::size_t color) const;
  // As RankTransport::exchange().
  void exchange(std::span<const std::span<const std::byte>> to,
                std::span<const std::span<std::byte>> from) const;

  // What work() gives, on rank 0 before on the others: for what writes a file
  // that they read, or finds a mistake that one of them is enough to tell.
  template <class Work>
  auto first_then_others(const Work& work) const {
    if (!is_first()) barrier();
    auto result = work();
    if (is_first()) barrier();
    return result;
  }

  RankTraffic traffic() const;  // not collective
  // As RankTransport has it; not collective.
  void set_patience(std::chrono::seconds patience) const;

 private:
  struct Link;
  std::vector<std::string> gather(std::string_view bytes,
                                  bool on_first_alone) const;
  std::size_t rank_ = 0, size_ = 1;
  std::shared_ptr<Link> link_{};  // null: one process
};

// Items [first, first + count) of a whole.
struct Stretch {
  std::size_t first = 0, count = 0;
};

// What a rank works on of `items` that are cut at multiples of `grain`: as many
// pieces as any other, or one more.
inline Stretch share_of(std::size_t items, std::size_t grain, std::size_t rank,
                        std::size_t ranks) {
  const std::size_t pieces = (items + grain - 1) / grain;
  const std::size_t begin = std::min(items, pieces * rank / ranks * grain);
  const std::size_t end = std::min(items, pieces * (rank + 1) / ranks * grain);
  return {begin, end - begin};
}

template <class T>
void Ranks::join(std::span<T> whole, std::size_t grain) const {
  if (!is_spread()) return;
  const auto part = [&](std::size_t r) {
    const Stretch share = share_of(whole.size(), grain, r, size_);
    return std::as_writable_bytes(whole.subspan(share.first, share.count));
  };
  std::vector<std::span<const std::byte>> to(size_, part(rank_));
  std::vector<std::span<std::byte>> from;
  for (std::size_t r = 0; r < size_; ++r) from.push_back(part(r));
  to[rank_] = {};
  from[rank_] = {};
  exchange(to, from);
}

// Plain values as bytes for gather() and back.
template <class T>
std::string bytes_of(std::span<T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}
template <class T>
std::vector<T> values_of(std::string_view bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  bytes.copy(reinterpret_cast<char*>(values.data()), bytes.size());
  return values;
}

}  // namespace llmpress
