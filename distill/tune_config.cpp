#include "distill/tune_config.h"

#include <cmath>

namespace llmpress {
namespace {

using C = TuneConfig;

constexpr Named<AdapterKind> kKindWords[] = {{"lora", AdapterKind::kLora},
                                             {"rslora", AdapterKind::kRsLora},
                                             {"dora", AdapterKind::kDora},
                                             {"prefix", AdapterKind::kPrefix},
                                             {"prompt", AdapterKind::kPrompt}};
constexpr Named<VirtualStart> kStartWords[] = {
    {"text", VirtualStart::kText}, {"random", VirtualStart::kRandom}};

bool low_rank(const C& c) { return c.is_low_rank(); }
bool virtual_tokens(const C& c) { return c.is_virtual(); }
constexpr std::string_view kOfLora = "belongs to 'lora', 'rslora' and 'dora'";
constexpr std::string_view kOfVirtual = "belongs to 'prefix' and 'prompt'";

constexpr Setting<C> kSettings[] = {
    {"method",
     "`lora` (arXiv:2106.09685): `W + alpha / rank B A`; `rslora` "
     "(arXiv:2312.03732): `alpha / sqrt(rank)`; `dora` (arXiv:2402.09353): as "
     "`lora`, and a norm of every row learns too; `prefix` (arXiv:2101.00190): "
     "keys and values of virtual tokens before every text, in every block; "
     "`prompt` (arXiv:2104.08691): rows of the embedding before every text",
     word_at<kKindWords, &C::method>()},
    {"rank", "of factors", count_at<&C::rank>(1, 1 << 20), low_rank, kOfLora},
    {"alpha", "scales them", number_at<&C::alpha>(1e-6, 1e6), low_rank,
     kOfLora},
    {"num_virtual_tokens", "`prefix`, `prompt`: that stand before every text",
     count_at<&C::virtual_tokens>(1, 1 << 16), virtual_tokens, kOfVirtual},
    {"init",
     "what virtual tokens begin as: `text`: what the model makes of the first "
     "tokens of `text`; `random`: normal numbers of deviation 1, as PEFT's",
     word_at<kStartWords, &C::start>(), virtual_tokens, kOfVirtual},
    {"init_seed",
     "of what begins at random; what it is multiplied by (`B`) begins as 0",
     count_at<&C::seed>(0, std::size_t{1} << 62)},
};

}  // namespace

std::span<const Setting<TuneConfig>> tune_settings() { return kSettings; }

bool TuneConfig::is_low_rank() const {
  return method == AdapterKind::kLora || method == AdapterKind::kRsLora ||
         method == AdapterKind::kDora;
}

bool TuneConfig::is_virtual() const {
  return method == AdapterKind::kPrefix || method == AdapterKind::kPrompt;
}

double TuneConfig::scaling() const {
  const auto r = static_cast<double>(rank);
  return alpha / (method == AdapterKind::kRsLora ? std::sqrt(r) : r);
}

}  // namespace llmpress
