#include "compress/core/parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "compress/core/cancel.h"
#include "compress/core/error.h"

namespace llmpress {
namespace {

using Ranges = std::set<std::pair<std::size_t, std::size_t>>;

Ranges ranges_of(ThreadPool& pool, std::size_t count, std::size_t grain) {
  Ranges ranges;
  std::mutex mutex;
  pool.for_ranges(count, grain, [&](std::size_t begin, std::size_t end) {
    const std::lock_guard lock(mutex);
    EXPECT_TRUE(ranges.emplace(begin, end).second);
  });
  return ranges;
}

TEST(ThreadPool, CutsWorkByCountAndGrainAlone) {
  for (const std::size_t threads : {1u, 2u, 3u, 8u}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    EXPECT_EQ(ranges_of(pool, 10, 4), (Ranges{{0, 4}, {4, 8}, {8, 10}}));
    EXPECT_EQ(ranges_of(pool, 3, 100), (Ranges{{0, 3}}));
    EXPECT_EQ(ranges_of(pool, 0, 5), Ranges{});
  }
}

TEST(ThreadPool, CountsThisMachinesProcessorsByDefault) {
  EXPECT_EQ(ThreadPool().size(),
            std::max(1u, std::thread::hardware_concurrency()));
}

TEST(ThreadPool, DoesEveryItemOnceOverManyCalls) {
  ThreadPool pool(4);
  std::vector<int> done(1000);
  for (int call = 1; call <= 500; ++call) {
    pool.for_each(done.size(), [&](std::size_t i) { ++done[i]; });
    ASSERT_EQ(std::accumulate(done.begin(), done.end(), 0), call * 1000);
  }
}

// Two bodies that wait for each other can only end on two threads.
TEST(ThreadPool, RunsRangesAtTheSameTime) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  pool.for_each(2, [&](std::size_t) {
    ++arrived;
    while (arrived.load() < 2) std::this_thread::yield();
  });
  EXPECT_EQ(arrived.load(), 2);
}

TEST(ThreadPool, RethrowsTheExceptionOfTheLowestRange) {
  for (const std::size_t threads : {1u, 2u, 8u}) {
    ThreadPool pool(threads);
    for (int repeat = 0; repeat < 100; ++repeat) {
      try {
        pool.for_each(64, [](std::size_t i) {
          if (i >= 5) throw std::runtime_error(std::to_string(i));
          if (i == 4) std::this_thread::yield();
        });
        FAIL() << "nothing thrown";
      } catch (const std::runtime_error& e) {
        EXPECT_STREQ(e.what(), "5");
      }
    }
    // The pool works on.
    EXPECT_EQ(ranges_of(pool, 4, 2), (Ranges{{0, 2}, {2, 4}}));
  }
}

TEST(ThreadPool, RethrowsTheLowestRangesExceptionEvenIfItIsThrownLast) {
  ThreadPool pool(2);
  std::atomic<bool> second_threw{false};
  try {
    pool.for_each(2, [&](std::size_t i) {
      if (i == 1) {
        second_threw = true;
        throw std::runtime_error("1");
      }
      while (!second_threw) std::this_thread::yield();
      // Time for the pool to note the other exception first.
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      throw std::runtime_error("0");
    });
    FAIL() << "nothing thrown";
  } catch (const std::runtime_error& e) {
    EXPECT_STREQ(e.what(), "0");
  }
}

TEST(ThreadPool, RunsNestedCallsOnTheCallingThread) {
  ThreadPool pool(3), other(2);
  std::atomic<int> items{0};
  pool.for_each(8, [&](std::size_t) {
    const auto outer = std::this_thread::get_id();
    for (ThreadPool* inner : {&pool, &other}) {
      inner->for_each(5, [&](std::size_t) {
        EXPECT_EQ(std::this_thread::get_id(), outer);
        ++items;
      });
    }
  });
  EXPECT_EQ(items.load(), 80);
}

TEST(ThreadPool, CarriesExceptionsOutOfNestedCalls) {
  ThreadPool pool(2);
  EXPECT_THROW(pool.for_each(4,
                             [&](std::size_t) {
                               pool.for_each(4, [](std::size_t i) {
                                 if (i == 3) throw std::logic_error("inner");
                               });
                             }),
               std::logic_error);
  // A call after it is not mistaken for a nested one.
  std::set<std::thread::id> ids;
  std::mutex mutex;
  std::atomic<int> arrived{0};
  pool.for_each(2, [&](std::size_t) {
    ++arrived;
    while (arrived.load() < 2) std::this_thread::yield();
    const std::lock_guard lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(ids.size(), 2u);
}

TEST(ThreadPool, ServesCallsFromSeveralThreadsInTurn) {
  ThreadPool pool(3);
  std::atomic<int> items{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int call = 0; call < 100; ++call) {
        pool.for_ranges(10, 3, [&](std::size_t begin, std::size_t end) {
          items += static_cast<int>(end - begin);
        });
      }
    });
  }
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(items.load(), 4000);
}

// The caller may free what the body used as soon as the call returns.
TEST(ThreadPool, LeavesNothingRunningBehindACall) {
  ThreadPool pool(4);
  for (int call = 0; call < 2000; ++call) {
    auto sums = std::make_unique<std::vector<std::size_t>>(8);
    pool.for_each(8, [&](std::size_t i) { (*sums)[i] = i; });
    EXPECT_EQ(std::accumulate(sums->begin(), sums->end(), std::size_t{0}), 28u);
  }
}

TEST(ThreadPool, IsMadeAndDestroyedWithoutWork) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(4);
}

TEST(ThreadPool, StopsBetweenChunksOnceCancelled) {
  for (const std::size_t threads : {1u, 3u}) {
    ThreadPool pool(threads);
    std::atomic<int> started{0};
    try {
      pool.for_each(100'000, [&](std::size_t) {
        ++started;
        request_cancel();
      });
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCancelled);
    }
    EXPECT_LE(started, static_cast<int>(threads));
    EXPECT_THROW(pool.for_each(1, [](std::size_t) {}), Error);
    request_cancel(false);
    pool.for_each(1, [&](std::size_t) { started = -1; });
    EXPECT_EQ(started, -1);
  }
}

}  // namespace
}  // namespace llmpress
