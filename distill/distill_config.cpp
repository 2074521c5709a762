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

constexpr Named<TopKRest> kRestWords[] = {
    {"tail", TopKRest::kTail}, {"renormalised", TopKRest::kRenormalised}};
constexpr Named<RelationKind> kRelationWords[] = {
    {"all", RelationKind::kAll},
    {"queries", RelationKind::kQueries},
    {"keys", RelationKind::kKeys},
    {"values", RelationKind::kValues}};

constexpr std::size_t kMany = std::size_t{1} << 20;

bool is_mixture(const C& c) { return c.kind == DivergenceKind::kJensenShannon; }
bool is_forward(const C& c) { return c.kind == DivergenceKind::kForward; }
bool has_top_k(const C& c) { return c.top_k > 0; }
bool has_hidden(const C& c) { return c.hidden > 0; }
bool has_relation(const C& c) { return c.relation > 0; }
bool is_on_policy(const C& c) { return c.on_policy > 0; }
constexpr std::string_view kOfRelation = "needs 'relation' above 0";
constexpr std::string_view kOfOnPolicy = "needs 'on_policy' above 0";

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
    {"top_k",
     "compare the teacher's most probable tokens only, so many of them; 0: all",
     count_at<&C::top_k>(0, kMany), is_forward, "belongs to loss 'forward_kl'"},
    {"top_k_rest",
     "the others are one event more (`tail`), or left out (`renormalised`)",
     word_at<kRestWords, &C::rest>(), has_top_k, "needs 'top_k' above 0"},
    {"hidden", "weight of the distance between hidden states",
     number_at<&C::hidden>(0, 1e6)},
    {"hidden_loss", "that distance", word_at<kDistanceWords, &C::distance>(),
     has_hidden, "needs 'hidden' above 0"},
    {"relation",
     "weight of the distance between relations of tokens (MiniLMv2, "
     "arXiv:2012.15828)",
     number_at<&C::relation>(0, 1e6)},
    {"relation_of",
     "by what tokens are related, as attention reads it; `all`: the mean of "
     "the three",
     word_at<kRelationWords, &C::relation_of>(), has_relation, kOfRelation},
    {"relation_block", "the student's block, counted from 1; 0: the last",
     count_at<&C::relation_block>(0, kMany), has_relation, kOfRelation},
    {"relation_heads",
     "parts that widths are cut into; 0: the most that divide both models' "
     "key/value heads",
     count_at<&C::relation_heads>(0, kMany), has_relation, kOfRelation},
    {"on_policy",
     "share of passes on texts that the student writes itself (GKD, "
     "arXiv:2306.13649); the teacher alone judges them",
     number_at<&C::on_policy>(0, 1)},
    {"on_policy_prompt",
     "tokens of each part of the text that the student goes on from",
     count_at<&C::on_policy_prompt>(1, kMany), is_on_policy, kOfOnPolicy},
    {"on_policy_temperature", "of the student's softmax while it writes",
     number_at<&C::on_policy_temperature>(1e-3, 1e3), is_on_policy,
     kOfOnPolicy},
};

}  // namespace

std::span<const Setting<DistillConfig>> distill_settings() { return kSettings; }

void check(const DistillConfig& config) {
  if (config.cross_entropy + config.divergence + config.hidden +
          config.relation <=
      0) {
    fail(ErrorCode::kInvalidArgument,
         "'cross_entropy', 'divergence', 'hidden' and 'relation' are all 0: "
         "nothing to learn");
  }
  if (config.on_policy > 0 && config.divergence == 0) {
    fail(ErrorCode::kInvalidArgument,
         "'on_policy' needs 'divergence' above 0: nothing else judges what the "
         "student writes");
  }
}

}  // namespace llmpress
