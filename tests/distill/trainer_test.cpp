#include "distill/trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "distill/memory_store.h"
#include "tests/compress/model/tiny_model.h"

namespace llmpress {
namespace {

// Checkpoints in memory; gives up as if killed after a number of them.
class KilledStore final : public MemoryStore {
 public:
  std::size_t saves_left = static_cast<std::size_t>(-1);

  void save(const std::string& name, const TrainingProgress& progress,
            std::span<const Parameter> parameters,
            std::span<const OptimizerState> states) override {
    if (saves_left-- == 0) throw Error(ErrorCode::kCancelled, "killed");
    MemoryStore::save(name, progress, parameters, states);
  }
};

// Counting upwards from random beginnings: easy to learn.
std::vector<std::vector<TokenId>> counting_documents(std::size_t vocabulary) {
  Rng rng(3);
  std::vector<std::vector<TokenId>> documents;
  for (std::size_t d = 0; d < 30; ++d) {
    auto token = static_cast<TokenId>(rng.below(vocabulary));
    std::vector<TokenId> document;
    for (std::size_t i = 0; i < 7 + d % 5; ++i) {
      document.push_back(token);
      token = (token + 1) % static_cast<TokenId>(vocabulary);
    }
    documents.push_back(std::move(document));
  }
  return documents;
}

struct Trained {
  TrainingResult result{};
  std::vector<float> weights{};
  TrainingProgress progress{};
};

const TinyShape kShape{};

TrainConfig small_config() {
  return {.steps = 12,
          .sequence_length = 8,
          .batch_size = 4,
          .learning_rate = 3e-3,
          .evaluate_every = 3,
          .checkpoint_every = 2};
}

std::unique_ptr<Checkpoint> tiny_checkpoint(const TinyTensors& tensors) {
  return std::make_unique<MemoryCheckpoint>(tensors, config_json(kShape));
}

Trained train_tiny(const TrainConfig& config, TrainingStore& store,
                   std::size_t threads = 1, bool held_out = false) {
  ThreadPool pool(threads);
  const auto checkpoint = tiny_checkpoint(tiny_tensors(kShape, 5));
  TrainableModel model(*checkpoint,
                       {.keep_activations = config.keep_activations});
  const auto objective = text_objective(0);
  TrainingData data(counting_documents(kShape.vocabulary),
                    config.sequence_length);
  Trained trained{.result = train({.config = config,
                                   .model = &model,
                                   .objective = objective.get(),
                                   .data = &data,
                                   .held_out = held_out ? &data : nullptr,
                                   .store = &store},
                                  pool)};
  for (const Parameter& p : model.parameters()) {
    trained.weights.insert(trained.weights.end(), p.value.begin(),
                           p.value.end());
  }
  return trained;
}

TEST(Trainer, LearnsToCount) {
  KilledStore store;
  TrainConfig config = small_config();
  config.steps = 150;
  const Trained trained = train_tiny(config, store);
  EXPECT_GT(trained.result.before.total, 3.0);
  EXPECT_LT(trained.result.after.total, 0.4);
}

TEST(Trainer, GivesTheSameBytesAtAnyThreadCountAndWithoutKeptActivations) {
  KilledStore one, three, again;
  TrainConfig config = small_config();
  const Trained alone = train_tiny(config, one);
  EXPECT_EQ(alone.weights, train_tiny(config, three, 3).weights);
  config.keep_activations = false;
  EXPECT_EQ(alone.weights, train_tiny(config, again).weights);
}

TEST(Trainer, EndsInTheSameBytesWhereverItWasKilled) {
  for (const OptimizerKind kind :
       {OptimizerKind::kAdamW, OptimizerKind::kAdamW8Bit,
        OptimizerKind::kSgd}) {
    TrainConfig config = small_config();
    config.optimizer = kind;
    config.weights = WeightPrecision::kBf16;
    KilledStore whole;
    const Trained wanted = train_tiny(config, whole);
    for (std::size_t saves = 1; saves < 6; ++saves) {
      KilledStore store;
      store.saves_left = saves;
      EXPECT_THROW((void)train_tiny(config, store), Error);
      store.saves_left = static_cast<std::size_t>(-1);
      const Trained found = train_tiny(config, store);
      EXPECT_EQ(found.weights, wanted.weights) << saves;
      EXPECT_EQ(found.result.after.total, wanted.result.after.total);
    }
  }
}

TEST(Trainer, KeepsZerosWhereAsked) {
  ThreadPool pool(1);
  TinyTensors tensors = tiny_tensors(kShape, 5);
  MatrixF& up = tensors.at("model.layers.0.mlp.up_proj.weight");
  for (std::size_t i = 0; i < up.size(); i += 2) up.data()[i] = 0;
  const auto checkpoint = tiny_checkpoint(tensors);
  for (const bool keep : {true, false}) {
    TrainConfig config = small_config();
    config.keep_zeros = keep;
    TrainableModel model(*checkpoint, {});
    const auto objective = text_objective(0);
    TrainingData data(counting_documents(kShape.vocabulary), 8);
    KilledStore store;
    (void)train({.config = config,
                 .model = &model,
                 .objective = objective.get(),
                 .data = &data,
                 .store = &store},
                pool);
    const auto found = std::ranges::find(model.parameters(),
                                         "model.layers.0.mlp.up_proj.weight",
                                         &Parameter::name);
    const auto zeros =
        static_cast<std::size_t>(std::ranges::count(found->value, 0.0f));
    EXPECT_EQ(zeros, keep ? up.size() / 2 : 0);
  }
}

TEST(Trainer, GoesBackAndSaysSoWhereTheLossJumps) {
  KilledStore store;
  TrainConfig config = small_config();
  config.learning_rate = 1e3;
  config.clip = 0;
  config.warmup = 0;
  try {
    const Trained trained = train_tiny(config, store);
    // Halved rates may do in the end; then the notes say what happened.
    EXPECT_FALSE(trained.result.progress.notes.empty());
    EXPECT_LT(trained.result.after.total, 2 * trained.result.before.total);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNumeric);
    EXPECT_NE(std::string(error.what()).find("learning_rate"),
              std::string::npos);
  }
}

TEST(Trainer, StopsEarlyWithTheBestWeights) {
  KilledStore store;
  TrainConfig config = small_config();
  config.steps = 400;
  config.learning_rate = 0.05;
  config.decay = LearningRateDecay::kConstant;
  config.evaluate_every = 2;
  config.patience = 3;
  const Trained trained = train_tiny(config, store, 1, true);
  EXPECT_TRUE(trained.result.stopped_early);
  ASSERT_TRUE(trained.result.progress.best.has_value());
  EXPECT_EQ(trained.result.after.total, *trained.result.progress.best);
}

// Counting upwards is learned, noise is not: its loss stays above.
Trained train_domains(const TrainConfig& config, TrainingStore& store,
                      double rate, std::size_t threads = 1) {
  ThreadPool pool(threads);
  const auto checkpoint = tiny_checkpoint(tiny_tensors(kShape, 5));
  TrainableModel model(*checkpoint, {.keep_activations = true});
  const auto objective = text_objective(0);
  const auto counting = counting_documents(kShape.vocabulary);
  std::vector<std::vector<TokenId>> noise;
  for (std::size_t d = 0; d < 20; ++d) {
    noise.push_back(random_tokens(8, kShape.vocabulary, d));
  }
  std::vector<std::vector<TokenId>> both = counting;
  both.insert(both.end(), noise.begin(), noise.end());
  TrainingData all(both, config.sequence_length),
      first(counting, config.sequence_length),
      second(noise, config.sequence_length);
  Trained trained{.result = train({.config = config,
                                   .model = &model,
                                   .objective = objective.get(),
                                   .data = &all,
                                   .domains = {{.name = "counting",
                                                .data = &first,
                                                .weight = 3,
                                                .reference_loss = 2},
                                               {.name = "noise",
                                                .data = &second,
                                                .weight = 1,
                                                .reference_loss = 2}},
                                   .domain_rate = rate,
                                   .store = &store},
                                  pool)};
  for (const Parameter& p : model.parameters()) {
    trained.weights.insert(trained.weights.end(), p.value.begin(),
                           p.value.end());
  }
  return trained;
}

TEST(Trainer, SeesDomainsMoreOftenThatLagBehind) {
  KilledStore store;
  TrainConfig config = small_config();
  config.steps = 60;
  config.evaluate_every = 10;
  const Trained trained = train_domains(config, store, 1);
  const TrainingProgress& progress = trained.result.progress;
  EXPECT_EQ(progress.curve.front().domains.at(1).weight, 0.25);
  EXPECT_GT(progress.domains.at(1).weight, 0.5);
  EXPECT_EQ(progress.domains[0].drawn + progress.domains[1].drawn, 240u);
  EXPECT_GT(progress.domains[1].drawn, 90u);
  std::size_t evaluations = 0;
  for (const TrainingPoint& point : progress.curve) {
    EXPECT_EQ(point.domains.empty(), !point.evaluation.has_value());
    evaluations += point.domains.empty() ? 0u : 1u;
  }
  EXPECT_EQ(evaluations, 7u);
  KilledStore still;
  const Trained fixed = train_domains(config, still, 0);
  EXPECT_EQ(fixed.result.progress.domains.at(1).weight, 0.25);
}

TEST(Trainer, EndsInTheSameBytesWithDomainsToo) {
  const TrainConfig config = small_config();
  KilledStore whole;
  const Trained wanted = train_domains(config, whole, 1);
  for (std::size_t saves = 1; saves < 7; ++saves) {
    KilledStore store;
    store.saves_left = saves;
    bool killed = false;
    try {
      (void)train_domains(config, store, 1);
    } catch (const Error&) {
      killed = true;
    }
    store.saves_left = static_cast<std::size_t>(-1);
    const Trained found = train_domains(config, store, 1, 3);
    EXPECT_EQ(found.weights, wanted.weights) << saves << killed;
    EXPECT_EQ(found.result.progress.domains, wanted.result.progress.domains);
  }
}

TEST(Trainer, RefusesATextShorterThanABatch) {
  KilledStore store;
  TrainConfig config = small_config();
  config.batch_size = 500;
  EXPECT_THROW((void)train_tiny(config, store), Error);
  config = small_config();
  config.tokens = 5;  // and steps
  EXPECT_THROW((void)train_tiny(config, store), Error);
}

}  // namespace
}  // namespace llmpress
