#include "distill/tune_config.h"

#include <cmath>

#include "compress/model/bottleneck.h"

namespace llmpress {
namespace {

using C = TuneConfig;

constexpr Named<AdapterKind> kKindWords[] = {
    {"lora", AdapterKind::kLora},
    {"rslora", AdapterKind::kRsLora},
    {"dora", AdapterKind::kDora},
    {"prefix", AdapterKind::kPrefix},
    {"prompt", AdapterKind::kPrompt},
    {"bottleneck", AdapterKind::kBottleneck},
    {"diff_pruning", AdapterKind::kDiffPruning}};
constexpr Named<BottleneckPlace> kPlaceWords[] = {
    {"houlsby", BottleneckPlace::kHoulsby},
    {"pfeiffer", BottleneckPlace::kPfeiffer}};
constexpr Named<VirtualStart> kStartWords[] = {
    {"text", VirtualStart::kText}, {"random", VirtualStart::kRandom}};

bool low_rank(const C& c) { return c.is_low_rank(); }
bool virtual_tokens(const C& c) { return c.is_virtual(); }
constexpr std::string_view kOfLora = "belongs to 'lora', 'rslora' and 'dora'";
bool bottleneck(const C& c) { return c.method == AdapterKind::kBottleneck; }
bool difference(const C& c) { return c.method == AdapterKind::kDiffPruning; }
constexpr std::string_view kOfBottleneck = "belongs to 'bottleneck'";
constexpr std::string_view kOfDifference = "belongs to 'diff_pruning'";
constexpr std::string_view kOfVirtual = "belongs to 'prefix' and 'prompt'";

constexpr Setting<C> kSettings[] = {
    {"method",
     "`lora` (arXiv:2106.09685): `W + alpha / rank B A`; `rslora` "
     "(arXiv:2312.03732): `alpha / sqrt(rank)`; `dora` (arXiv:2402.09353): as "
     "`lora`, and a norm of every row learns too; `prefix` (arXiv:2101.00190): "
     "keys and values of virtual tokens before every text, in every block; "
     "`prompt` (arXiv:2104.08691): rows of the embedding before every text; "
     "`bottleneck` (arXiv:1902.00751): `y + U f(D y + d) + u` behind Linears "
     "that add to the stream; `diff_pruning` (arXiv:2012.07463): a difference "
     "of the weights that is 0 but in few places",
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
    {"bottleneck_size", "`bottleneck`: rows of `D`",
     count_at<&C::bottleneck_size>(1, 1 << 20), bottleneck, kOfBottleneck},
    {"activation", "`bottleneck`: f; `gelu` by erf",
     word_at<kBottleneckActivations, &C::activation>(), bottleneck,
     kOfBottleneck},
    {"placement",
     "`bottleneck`: `houlsby`: behind what attention and MLP add to the "
     "stream; `pfeiffer` (arXiv:2005.00052): behind the MLP alone",
     word_at<kPlaceWords, &C::placement>(), bottleneck, kOfBottleneck},
    {"keep",
     "`diff_pruning`: fraction of the numbers of the targets that may differ "
     "in the end",
     number_at<&C::keep>(1e-9, 1), difference, kOfDifference},
    {"penalty", "`diff_pruning`: times the expected fraction of open gates",
     number_at<&C::penalty>(0, 1e6), difference, kOfDifference},
    {"gate_rate", "`diff_pruning`: of the gates, times the learning rate",
     number_at<&C::gate_rate>(0, 1e6), difference, kOfDifference},
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
