#include "formats/files/child_process.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <thread>
#include <vector>

#include "compress/core/error.h"

namespace llmpress {
namespace {

std::string failure_of(const std::function<std::string()>& body,
                       const ChildLimits& limits = {}) {
  try {
    run_in_child("a.h5", limits, body);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruptFile);
    return e.what();
  }
  return "";
}

TEST(ChildProcess, ReturnsWhatTheBodyReturns) {
  const std::string long_text(300'000, 'x');
  EXPECT_EQ(run_in_child("a", {}, [&] { return long_text + '\0'; }),
            long_text + '\0');
  EXPECT_EQ(run_in_child("a", {}, [] { return std::string(); }), "");
}

TEST(ChildProcess, ThrowsTheErrorsOfTheBodyAgain) {
  try {
    run_in_child("a", {}, []() -> std::string {
      throw Error(ErrorCode::kUnsupported, "b: unknown");
    });
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_STREQ(e.what(), "b: unknown");
  }
}

TEST(ChildProcess, NamesTheFileAndTheSignalOfACrash) {
  EXPECT_EQ(failure_of([]() -> std::string {
              std::raise(SIGSEGV);
              return "";
            }),
            "a.h5: reading it ended by signal 11; the file is damaged");
}

TEST(ChildProcess, EndsALoopAndASleep) {
  EXPECT_EQ(failure_of(
                []() -> std::string {
                  volatile bool end = false;  // a loop that may not go
                  while (!end) {
                  }
                  return "";
                },
                {.cpu_seconds = 1, .wall_seconds = 60}),
            "a.h5: reading it took over 1 s; the file is damaged");
  EXPECT_EQ(failure_of(
                []() -> std::string {
                  std::this_thread::sleep_for(std::chrono::hours(1));
                  return "";
                },
                {.wall_seconds = 1}),
            "a.h5: reading it did not end; the file is damaged");
}

TEST(ChildProcess, RefusesMemoryBeyondTheLimit) {
  const ChildLimits limits{.memory_bytes = 64u << 20};
  // Not a constant: clang 14 would make the string while it compiles.
  volatile std::size_t size = std::size_t{1} << 40;
  EXPECT_NE(failure_of([&]() -> std::string { return std::string(size, 'x'); },
                       limits),
            "");
}

TEST(ChildProcess, WorksBesideBusyThreads) {
  std::vector<std::jthread> busy;
  for (int i = 0; i < 3; ++i) {
    busy.emplace_back([](const std::stop_token& stop) {
      std::string text;
      while (!stop.stop_requested()) {  // holds malloc's locks now and then
        text.append(1000, 'z');
        if (text.size() > 1'000'000) std::string().swap(text);
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(run_in_child("a", {}, [] { return std::string(9000, 'y'); }),
              std::string(9000, 'y'));
  }
}

}  // namespace
}  // namespace llmpress
