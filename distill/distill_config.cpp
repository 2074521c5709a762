#include "distill/distill_config.h"

#include <string_view>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

using C = DistillConfig;

constexpr Named<DivergenceKind> kDivergenceWords[] = {
    {"forward_kl", DivergenceKind::kForward},
    {"reverse_kl", DivergenceKind::kReverse},
    {"jsd", DivergenceKind::kJensenShannon}};
constexpr Named<HiddenStateDistance> kDistanceWords[] = {
    {"cosine", HiddenStateDistance::kCosine},
    {"mse", HiddenStateDistance::kSquaredError}};

bool is_mixture(const C& c) { return c.kind == DivergenceKind::kJensenShannon; }
bool has_hidden(const C& c) { return c.hidden > 0; }

constexpr Setting<C> kSettings[] = {
    {"cross_entropy", "weight of the loss on the text itself",
     number_at<&C::cross_entropy>(0, 1e6)},
    {"divergence", "weight of the distance to the teacher's next token",
     number_at<&C::divergence>(0, 1e6)},
    {"loss", "which distance", word_at<kDivergenceWords, &C::kind>()},
    {"temperature", "of both softmaxes; the distance is times its square",
     number_at<&C::temperature>(1e-3, 1e3)},
    {"beta", "`jsd`: the teacher's part of the mixture",
     number_at<&C::beta>(0, 1), is_mixture, "belongs to loss 'jsd'"},
    {"hidden", "weight of the distance between hidden states",
     number_at<&C::hidden>(0, 1e6)},
    {"hidden_loss", "that distance", word_at<kDistanceWords, &C::distance>(),
     has_hidden, "needs 'hidden' above 0"},
};

}  // namespace

std::span<const Setting<DistillConfig>> distill_settings() { return kSettings; }

void check(const DistillConfig& config) {
  if (config.cross_entropy + config.divergence + config.hidden > 0) return;
  fail(
      ErrorCode::kInvalidArgument,
      "'cross_entropy', 'divergence' and 'hidden' are all 0: nothing to learn");
}

}  // namespace llmpress
