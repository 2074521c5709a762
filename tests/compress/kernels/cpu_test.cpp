#include "compress/kernels/cpu.h"

#include <gtest/gtest.h>

namespace llmpress {
namespace {

TEST(Cpu, PlainVersionComesFirstAndTheBestLast) {
  const auto isas = available_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::kScalar);
  EXPECT_EQ(isas.back(), best_isa());
  for (const Isa isa : isas) EXPECT_FALSE(isa_name(isa).empty());
}

}  // namespace
}  // namespace llmpress
