#include "compress/core/setting.h"

#include <gtest/gtest.h>

namespace llmpress {
namespace {

enum class Mood { kCalm, kBrisk };

struct Inner {
  double p = 0.25;
  std::size_t n = 3;
  Mood mood = Mood::kBrisk;
};

struct Outer {
  Inner inner{};
  bool on = false;
};

constexpr Named<Mood> kMoodWords[] = {{"calm", Mood::kCalm},
                                      {"brisk", Mood::kBrisk}};

constexpr Setting<Outer> kSettings[] = {
    {"on", "", bool_at<&Outer::on>()},
    {"n", "", count_at<&Outer::inner, &Inner::n>(1, 9)},
    {"mood", "", word_at<kMoodWords, &Outer::inner, &Inner::mood>()},
};

TEST(Setting, LiesWhereItsPathLeads) {
  Outer config;
  const auto p = number_at<&Outer::inner, &Inner::p>(0, 1);
  EXPECT_EQ(p.place.get(config), 0.25);
  p.place.set(config, 0.5);
  EXPECT_EQ(config.inner.p, 0.5);
}

TEST(Setting, HoldsWordsByTheirIndex) {
  Outer config;
  const auto mood = word_at<kMoodWords, &Outer::inner, &Inner::mood>();
  ASSERT_EQ(mood.words, 2u);
  EXPECT_EQ(mood.word(mood.place.get(config)), "brisk");
  mood.place.set(config, 0);
  EXPECT_EQ(config.inner.mood, Mood::kCalm);
}

TEST(Setting, CopiesWhatItsTableHasAndNothingElse) {
  const Outer from{.inner = {.p = 0.9, .n = 7, .mood = Mood::kCalm},
                   .on = true};
  Outer to;
  copy_settings<Outer>(kSettings, from, to);
  EXPECT_TRUE(to.on);
  EXPECT_EQ(to.inner.n, 7u);
  EXPECT_EQ(to.inner.mood, Mood::kCalm);
  EXPECT_EQ(to.inner.p, 0.25);
}

}  // namespace
}  // namespace llmpress
