#include "distill/tune_config.h"

#include <cmath>

namespace llmpress {
namespace {

using C = TuneConfig;

constexpr Named<AdapterKind> kKindWords[] = {{"lora", AdapterKind::kLora},
                                             {"rslora", AdapterKind::kRsLora},
                                             {"dora", AdapterKind::kDora}};

constexpr Setting<C> kSettings[] = {
    {"method",
     "`lora` (arXiv:2106.09685): `W + alpha / rank B A`; `rslora` "
     "(arXiv:2312.03732): `alpha / sqrt(rank)`; `dora` (arXiv:2402.09353): as "
     "`lora`, and a norm of every row learns too",
     word_at<kKindWords, &C::method>()},
    {"rank", "of the adapter", count_at<&C::rank>(1, 1 << 20)},
    {"alpha", "scales it", number_at<&C::alpha>(1e-6, 1e6)},
    {"init_seed", "of the random numbers that `A` begins with; `B` begins as 0",
     count_at<&C::seed>(0, std::size_t{1} << 62)},
};

}  // namespace

std::span<const Setting<TuneConfig>> tune_settings() { return kSettings; }

double TuneConfig::scaling() const {
  const auto r = static_cast<double>(rank);
  return alpha / (method == AdapterKind::kRsLora ? std::sqrt(r) : r);
}

}  // namespace llmpress
