#include "compress/core/ranks.h"

#include <gtest/gtest.h>

#include <atomic>

#include "tests/compress/core/thread_ranks.h"

namespace llmpress {
namespace {

TEST(Ranks, OneProcessNeedsNoTransport) {
  const Ranks ranks;
  EXPECT_EQ(ranks.rank(), 0u);
  EXPECT_EQ(ranks.size(), 1u);
  EXPECT_TRUE(ranks.is_first());
  EXPECT_FALSE(ranks.is_spread());
  EXPECT_TRUE(ranks.owns(0) && ranks.owns(7));
  ranks.barrier();
  EXPECT_EQ(ranks.broadcast("abc"), "abc");
  EXPECT_EQ(ranks.gather("x"), std::vector<std::string>{"x"});
  EXPECT_EQ(ranks.first_then_others([] { return 3; }), 3);
  EXPECT_EQ(ranks.traffic().sent, 0u);
}

TEST(Ranks, BroadcastTheRootsBytesOfAnySize) {
  for (const std::size_t size : {2u, 3u, 5u}) {
    run_on_ranks(size, [&](const Ranks& ranks) {
      for (std::size_t root = 0; root < size; ++root) {
        const std::string own(3 * root, static_cast<char>('a' + root));
        EXPECT_EQ(ranks.broadcast(ranks.rank() == root ? own : "other", root),
                  own);
        std::vector<float> numbers(4, static_cast<float>(ranks.rank()));
        ranks.broadcast(std::span(numbers), root);
        EXPECT_EQ(numbers, std::vector<float>(4, static_cast<float>(root)));
      }
    });
  }
}

TEST(Ranks, GatherInRankOrder) {
  run_on_ranks(3, [](const Ranks& ranks) {
    const std::string own(ranks.rank(), static_cast<char>('a' + ranks.rank()));
    const std::vector<std::string> all{"", "b", "cc"};
    EXPECT_EQ(ranks.gather(own), all);
    const auto first = ranks.gather_on_first(own);
    if (ranks.is_first()) {
      EXPECT_EQ(first, all);
    } else {
      EXPECT_EQ(first[ranks.rank()], own);
    }
  });
}

TEST(Ranks, ShareAWholeInPiecesAndJoinIt) {
  const auto of = [](std::size_t rank, std::size_t ranks) {
    const Stretch share = share_of(1000, 256, rank, ranks);
    return std::pair(share.first, share.count);
  };
  EXPECT_EQ(of(0, 1), std::pair(0ul, 1000ul));
  EXPECT_EQ(of(0, 3), std::pair(0ul, 256ul));
  EXPECT_EQ(of(2, 3), std::pair(512ul, 488ul));
  EXPECT_EQ(of(0, 8).second + of(1, 8).second, 256ul);  // four have none
  run_on_ranks(3, [](const Ranks& ranks) {
    std::vector<int> whole(1000, -1), wanted(1000);
    for (int i = 0; i < 1000; ++i) wanted[static_cast<std::size_t>(i)] = i;
    const Stretch own = share_of(1000, 256, ranks.rank(), ranks.size());
    for (std::size_t i = own.first; i < own.first + own.count; ++i) {
      whole[i] = static_cast<int>(i);
    }
    ranks.join(std::span(whole), 256);
    EXPECT_EQ(whole, wanted);
  });
}

TEST(Ranks, ShiftBytesToTheNext) {
  EXPECT_EQ(Ranks().shift("x"), "");
  run_on_ranks(3, [](const Ranks& ranks) {
    const std::string own(2 * ranks.rank(),
                          static_cast<char>('a' + ranks.rank()));
    const std::string wanted = ranks.rank() == 2 ? "bb" : "";
    EXPECT_EQ(ranks.shift(own), wanted);
  });
}

TEST(Ranks, SplitByColorInOrder) {
  EXPECT_EQ(Ranks().split(3).size(), 1u);
  run_on_ranks(5, [](const Ranks& ranks) {
    const Ranks odd_or_even = ranks.split(ranks.rank() % 2);
    EXPECT_EQ(odd_or_even.size(), ranks.rank() % 2 == 0 ? 3u : 2u);
    EXPECT_EQ(odd_or_even.rank(), ranks.rank() / 2);
    const std::string own(1, static_cast<char>('0' + ranks.rank()));
    std::string all;
    for (const std::string& part : odd_or_even.gather(own)) all += part;
    EXPECT_EQ(all, ranks.rank() % 2 == 0 ? "024" : "13");
    const Ranks alone = ranks.split(ranks.rank());
    EXPECT_FALSE(alone.is_spread());
    EXPECT_EQ(ranks.gather(own)[4], "4");  // goes on beside its parts
  });
}

TEST(Ranks, CountEveryByteOnceForEachRankThatItGoesTo) {
  run_on_ranks(3, [](const Ranks& ranks) {
    std::vector<float> numbers(10);
    ranks.broadcast(std::span(numbers), 1);
    const RankTraffic traffic = ranks.traffic();
    EXPECT_EQ(traffic.sent, ranks.rank() == 1 ? 80u : 0u);
    EXPECT_EQ(traffic.received, ranks.rank() == 1 ? 0u : 40u);
    (void)ranks.gather("12345");  // its size, 8 bytes, goes before it
    EXPECT_EQ(ranks.traffic().sent - traffic.sent, 2u * 13u);
    EXPECT_EQ(ranks.traffic().received - traffic.received, 2u * 13u);
  });
}

TEST(Ranks, LetTheFirstWorkBeforeTheOthers) {
  std::atomic<int> done{0};
  run_on_ranks(4, [&](const Ranks& ranks) {
    const int before = ranks.first_then_others([&] { return done++; });
    EXPECT_EQ(before == 0, ranks.is_first());
  });
}

TEST(Ranks, DealItemsOutInTurn) {
  run_on_ranks(3, [](const Ranks& ranks) {
    for (std::size_t item = 0; item < 9; ++item) {
      EXPECT_EQ(ranks.owns(item), item % 3 == ranks.rank());
    }
  });
}

}  // namespace
}  // namespace llmpress
