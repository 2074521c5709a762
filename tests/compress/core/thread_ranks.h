// Ranks that are threads of this process, for tests of what ranks do together.
#pragma once

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "compress/core/ranks.h"

namespace llmpress {

class ThreadTransport : public RankTransport {
 public:
  // What the transports of one group share.
  struct Group {
    explicit Group(std::size_t size)
        : arrived(static_cast<std::ptrdiff_t>(size)), rows(size) {}
    std::barrier<> arrived;
    // What each rank shows to the others during a call.
    std::vector<std::span<const std::span<const std::byte>>> rows;
    std::mutex mutex;
    std::map<std::size_t, std::shared_ptr<Group>> parts;  // by color
  };

  ThreadTransport(std::shared_ptr<Group> group, std::size_t rank)
      : group_(std::move(group)), rank_(rank) {}

  std::size_t rank() const override { return rank_; }
  std::size_t size() const override { return group_->rows.size(); }

  void broadcast(std::span<std::byte> bytes, std::size_t root) override {
    const std::vector<std::span<const std::byte>> own(1, bytes);
    group_->rows[rank_] = own;
    group_->arrived.arrive_and_wait();
    if (rank_ != root) {
      std::ranges::copy(group_->rows[root][0], bytes.begin());
    }
    group_->arrived.arrive_and_wait();
  }

  void exchange(std::span<const std::span<const std::byte>> to,
                std::span<const std::span<std::byte>> from) override {
    group_->rows[rank_] = to;
    group_->arrived.arrive_and_wait();
    for (std::size_t r = 0; r < from.size(); ++r) {
      const auto bytes = group_->rows[r][rank_];
      if (bytes.size() != from[r].size()) std::abort();  // would hang or tear
      std::ranges::copy(bytes, from[r].begin());
    }
    group_->arrived.arrive_and_wait();
  }

  std::shared_ptr<RankTransport> split(std::size_t color) override {
    std::vector<std::size_t> colors(size());
    const auto own = std::as_bytes(std::span(&color, 1));
    const std::vector<std::span<const std::byte>> to(size(), own);
    std::vector<std::span<std::byte>> from;
    for (std::size_t& other : colors) {
      from.push_back(std::as_writable_bytes(std::span(&other, 1)));
    }
    exchange(to, from);
    const auto size = std::ranges::count(colors, color);
    const auto rank =
        std::count(colors.begin(),
                   colors.begin() + static_cast<std::ptrdiff_t>(rank_), color);
    std::shared_ptr<Group> part;
    {
      const std::lock_guard lock(group_->mutex);
      std::shared_ptr<Group>& made = group_->parts[color];
      if (made == nullptr) {
        made = std::make_shared<Group>(static_cast<std::size_t>(size));
      }
      part = made;
    }
    group_->arrived.arrive_and_wait();
    {
      const std::lock_guard lock(group_->mutex);
      group_->parts.clear();
    }
    group_->arrived.arrive_and_wait();
    return std::make_shared<ThreadTransport>(part,
                                             static_cast<std::size_t>(rank));
  }

  void set_patience(std::chrono::seconds) override {}

 private:
  std::shared_ptr<Group> group_;
  std::size_t rank_;
};

// work(ranks) on `size` threads, each with its rank. An exception ends the
// process, as it ends all ranks of a run.
inline void run_on_ranks(std::size_t size,
                         const std::function<void(const Ranks&)>& work) {
  const auto group = std::make_shared<ThreadTransport::Group>(size);
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < size; ++r) {
    threads.emplace_back(
        [&, r] { work(Ranks(std::make_shared<ThreadTransport>(group, r))); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace llmpress
