#include "compress/core/side_task.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace llmpress {
namespace {

using namespace std::chrono_literals;

TEST(SideTask, DoesOneAfterTheOtherBesideTheCaller) {
  std::vector<int> done;
  std::atomic<bool> go = false;
  SideTask side;
  side.start([&] {
    while (!go) std::this_thread::sleep_for(1ms);
    done.push_back(1);
  });
  go = true;  // the caller was not kept waiting
  side.start([&] { done.push_back(2); });
  side.wait();
  side.wait();
  EXPECT_EQ(done, (std::vector<int>{1, 2}));
}

TEST(SideTask, TellsWhatATaskThrewAndDoesNotBeginTheNext) {
  SideTask side;
  side.start([] { throw std::runtime_error("disk full"); });
  bool begun = false;
  EXPECT_THROW(side.start([&] { begun = true; }), std::runtime_error);
  side.wait();
  EXPECT_FALSE(begun);
  side.start([] { throw std::runtime_error("again"); });
  EXPECT_THROW(side.wait(), std::runtime_error);
}

TEST(SideTask, IsWaitedForAtItsEnd) {
  std::atomic<bool> done = false;
  {
    SideTask side;
    side.start([&] {
      std::this_thread::sleep_for(20ms);
      done = true;
    });
  }
  EXPECT_TRUE(done);
}

}  // namespace
}  // namespace llmpress
