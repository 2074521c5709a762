#include "distill/train_config.h"

#include <string>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

using C = TrainConfig;

constexpr Named<OptimizerKind> kOptimizerWords[] = {
    {"adamw", OptimizerKind::kAdamW},
    {"adamw_8bit", OptimizerKind::kAdamW8Bit},
    {"sgd", OptimizerKind::kSgd}};
constexpr Named<LearningRateDecay> kDecayWords[] = {
    {"cosine", LearningRateDecay::kCosine},
    {"linear", LearningRateDecay::kLinear},
    {"constant", LearningRateDecay::kConstant}};
constexpr Named<WeightPrecision> kPrecisionWords[] = {
    {"f32", WeightPrecision::kF32}, {"bf16", WeightPrecision::kBf16}};

constexpr std::size_t kMany = std::size_t{1} << 40;

bool is_adam(const C& c) { return c.optimizer != OptimizerKind::kSgd; }
bool is_sgd(const C& c) { return c.optimizer == OptimizerKind::kSgd; }
bool decays(const C& c) { return c.decay != LearningRateDecay::kConstant; }
constexpr std::string_view kOfAdam = "belongs to optimizer 'adamw'";
constexpr std::string_view kOfSgd = "belongs to optimizer 'sgd'";

constexpr Setting<C> kSettings[] = {
    {"steps", "steps of the optimizer; this, `tokens` or `epochs`",
     count_at<&C::steps>(0, kMany)},
    {"tokens", "tokens to train on", count_at<&C::tokens>(0, kMany)},
    {"epochs", "passes over the text", number_at<&C::epochs>(0, 1e6)},
    {"sequence_length", "tokens of a sequence; documents are packed into it",
     count_at<&C::sequence_length>(2, 1 << 20)},
    {"batch_size", "sequences of one pass",
     count_at<&C::batch_size>(1, 1 << 20)},
    {"accumulation", "passes of one step, whose gradients are added",
     count_at<&C::accumulation>(1, 1 << 20)},
    {"optimizer",
     "`adamw`; `adamw_8bit`: its states in 8 bits, 2 bytes a weight instead of "
     "8; `sgd`",
     word_at<kOptimizerWords, &C::optimizer>()},
    {"learning_rate", "the highest", number_at<&C::learning_rate>(0, 1e6)},
    {"schedule", "how the learning rate falls after the warm-up",
     word_at<kDecayWords, &C::decay>()},
    {"warmup", "fraction of the steps in which the learning rate rises",
     number_at<&C::warmup>(0, 1)},
    {"minimum", "what it falls to, as a fraction of the highest",
     number_at<&C::minimum>(0, 1), decays,
     "does not apply to schedule 'constant'"},
    {"weight_decay", "decoupled; of matrices, not of norms and biases",
     number_at<&C::weight_decay>(0, 10)},
    {"beta1", "", number_at<&C::beta1>(0, 0.999999), is_adam, kOfAdam},
    {"beta2", "", number_at<&C::beta2>(0, 0.999999), is_adam, kOfAdam},
    {"epsilon", "", number_at<&C::epsilon>(0, 1), is_adam, kOfAdam},
    {"momentum", "`sgd`", number_at<&C::momentum>(0, 0.999999), is_sgd, kOfSgd},
    {"nesterov", "`sgd`: looks ahead", bool_at<&C::nesterov>(), is_sgd, kOfSgd},
    {"clip", "largest norm of the gradient; 0: off",
     number_at<&C::clip>(0, 1e9)},
    {"label_smoothing", "of the cross-entropy",
     number_at<&C::label_smoothing>(0, 0.999)},
    {"dropout",
     "probability that a number is left out of what attention and MLP add to "
     "the residual stream (arXiv:1207.0580)",
     number_at<&C::dropout>(0, 0.9)},
    {"attention_dropout", "likewise of attention's probabilities",
     number_at<&C::attention_dropout>(0, 0.9)},
    {"seed", "of the order of the sequences, and of what is left out",
     count_at<&C::seed>(0, std::size_t{1} << 62)},
    {"weights",
     "`bf16`: weights are bf16 numbers, rounded stochastically after a step",
     word_at<kPrecisionWords, &C::weights>()},
    {"keep_zeros", "weights that are 0 stay 0: after pruning",
     bool_at<&C::keep_zeros>()},
    {"keep_activations",
     "keep what the backward pass needs instead of running each block again: "
     "faster, more memory",
     bool_at<&C::keep_activations>()},
    {"evaluate_every", "steps between evaluations; 0: a tenth of all",
     count_at<&C::evaluate_every>(0, kMany)},
    {"evaluate_sequences", "of the held-out text, at most",
     count_at<&C::evaluate_sequences>(1, kMany)},
    {"patience", "evaluations without a better loss before it ends; 0: none",
     count_at<&C::patience>(0, kMany)},
    {"checkpoint_every", "steps between checkpoints; 0: at evaluations",
     count_at<&C::checkpoint_every>(0, kMany)},
    {"divergence_factor",
     "a loss this many times its running mean takes training back to its last "
     "checkpoint, with half the learning rate",
     number_at<&C::divergence_factor>(1.01, 1e9)},
};

}  // namespace

std::span<const Setting<TrainConfig>> train_settings() { return kSettings; }

void check(const TrainConfig& config) {
  const int given = int{config.steps != 0} + int{config.tokens != 0} +
                    int{config.epochs != 0};
  if (given != 1) {
    fail(ErrorCode::kInvalidArgument,
         "'steps', 'tokens' and 'epochs': one of them says how long to train, "
         "found {}",
         given);
  }
  if (config.optimizer == OptimizerKind::kSgd && config.nesterov &&
      config.momentum == 0) {
    fail(ErrorCode::kInvalidArgument, "'nesterov' needs 'momentum' above 0");
  }
}

}  // namespace llmpress
