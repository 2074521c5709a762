// Adapters that learn beside a frozen model, in memory: losses, bytes, and what
// their files mean to whoever reads them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/model/decoder.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/adapter_beside.h"
#include "compress/pipeline/training/learned_adapter.h"
#include "compress/pipeline/training/training_store.h"
#include "quantizers/rtn.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

const TinyShape kShape{.model_type = "qwen2", .qkv_bias = true};

// Gives up as if killed after a number of checkpoints.
class KilledStore final : public TrainingStore {
 public:
  KilledStore(const fs::path& directory, std::size_t saves)
      : store_(directory), saves_left_(saves) {}
  void save(const std::string& name, const TrainingProgress& progress,
            std::span<const Parameter> parameters,
            std::span<const OptimizerState> states) override {
    if (saves_left_-- == 0) fail(ErrorCode::kCancelled, "killed");
    store_.save(name, progress, parameters, states);
  }
  bool load(const std::string& name, TrainingProgress& progress,
            std::span<const Parameter> parameters,
            std::span<OptimizerState> states) override {
    return store_.load(name, progress, parameters, states);
  }

 private:
  FileTrainingStore store_;
  std::size_t saves_left_;
};

// Counting upwards from random beginnings: easy to learn.
std::vector<std::vector<TokenId>> counting_documents() {
  Rng rng(3);
  std::vector<std::vector<TokenId>> documents(40);
  for (auto& document : documents) {
    auto token = static_cast<TokenId>(rng.below(kShape.vocabulary));
    for (std::size_t i = 0; i < 8; ++i) {
      document.push_back(token);
      token = (token + 1) % static_cast<TokenId>(kShape.vocabulary);
    }
  }
  return documents;
}

class TunedModel : public testing::Test {
 protected:
  TunedModel()
      : base_(tiny_tensors(kShape, 5), config_json(kShape)),
        arch_(read_architecture(base_)) {}

  // All Linears of the blocks in 4 bits.
  void pack() {
    QuantizeConfig int4;
    int4.weights.group_size = 8;
    ThreadPool pool(1);
    for (const std::string& name : arch_.linear_names()) {
      LinearWeights linear = base_.read_linear(name);
      const MatrixF W = dequantize(linear.weight);
      linear.weight = round_to_nearest(W.view(), int4, pool);
      base_.packed[name] = std::move(linear);
    }
  }

  static TuneStage stage(AdapterKind kind) {
    TuneStage tune{.adapter = {.method = kind, .rank = 3, .alpha = 6}};
    tune.train.config = {.steps = 12,
                         .sequence_length = 8,
                         .batch_size = 4,
                         .learning_rate = 1e-2,
                         .weight_decay = 0,
                         .evaluate_every = 3,
                         .checkpoint_every = 2};
    return tune;
  }

  std::unique_ptr<TrainableModel> model_of(const TuneStage& tune) const {
    return std::make_unique<TrainableModel>(
        base_, TrainableOptions{
                   .learning = {.adapts = [chosen = adapters_of(tune, arch_)](
                                              const std::string& name) {
                     const auto found = chosen.find(name);
                     return found == chosen.end()
                                ? std::optional<LoraConfig>()
                                : std::optional(found->second);
                   }}});
  }

  TrainingResult train_with(TrainableModel& model, const TuneStage& tune,
                            TrainingStore& store, std::size_t threads = 2) {
    ThreadPool pool(threads);
    const auto objective = text_objective(0);
    TrainingData data(counting_documents(), tune.train.config.sequence_length);
    return train({.config = tune.train.config,
                  .model = &model,
                  .objective = objective.get(),
                  .data = &data,
                  .store = &store},
                 pool);
  }

  // The adapter's numbers after training.
  std::vector<float> numbers(const TuneStage& tune, TrainingStore& store,
                             std::size_t threads = 2) {
    const auto model = model_of(tune);
    (void)train_with(*model, tune, store, threads);
    std::vector<float> all;
    for (const Parameter& p : model->parameters()) {
      all.insert(all.end(), p.value.begin(), p.value.end());
    }
    return all;
  }

  fs::path folder(const std::string& name) const {
    return directory_.path() / name;
  }

  TemporaryDirectory directory_;
  MemoryCheckpoint base_;
  Architecture arch_;
};

constexpr AdapterKind kKinds[] = {AdapterKind::kLora, AdapterKind::kRsLora,
                                  AdapterKind::kDora};

TEST_F(TunedModel, LearnsBesideDenseAndPackedBasesAndItsFileMeansTheSame) {
  for (const bool packed : {false, true}) {
    if (packed) pack();
    for (const AdapterKind kind : kKinds) {
      TuneStage tune = stage(kind);
      tune.train.config.steps = 120;
      const std::string name =
          std::to_string(static_cast<int>(kind)) + (packed ? "p" : "d");
      FileTrainingStore store(folder("w" + name));
      const auto model = model_of(tune);
      for (const Parameter& p : model->parameters()) {
        EXPECT_NE(p.name.find(".lora_"), std::string::npos) << p.name;
      }
      const TrainingResult result = train_with(*model, tune, store);
      EXPECT_GT(result.before.total, 3.0);
      EXPECT_LT(result.after.total, 0.75 * result.before.total);
      write_peft_adapter(
          folder(name),
          learned_adapter(model->parameters(), tune.adapter.scaling()),
          {.rank_stabilized = kind == AdapterKind::kRsLora});
      ThreadPool pool(2);
      const auto beside =
          keep_beside(base_, arch_, {{folder(name), 1}}, best_isa(), pool);
      const Decoder decoder(*beside.checkpoint,
                            {.companion = beside.companion});
      const auto tokens = random_tokens(9, kShape.vocabulary, 2);
      const Segment all{tokens.size(), 0, nullptr};
      const MatrixF hidden = decoder.forward(tokens, {&all, 1}, pool);
      const MatrixF found = decoder.ends().logits(hidden.view(), pool);
      const MatrixF stream =
          model->forward({.tokens = tokens, .sequences = {9}}, pool);
      const MatrixF wanted = model->ends().logits(stream.view(), pool);
      float largest = 0;
      for (const float z : wanted.data())
        largest = std::max(largest, std::fabs(z));
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        ASSERT_NEAR(found.data()[i], wanted.data()[i], 2e-5f * largest) << name;
      }
    }
  }
}

TEST_F(TunedModel, GivesTheSameBytesAtAnyThreadCountAndWithoutKeptActivations) {
  pack();
  TuneStage tune = stage(AdapterKind::kDora);
  FileTrainingStore one(folder("1")), three(folder("3")), again(folder("a"));
  const std::vector<float> alone = numbers(tune, one, 1);
  EXPECT_EQ(alone, numbers(tune, three, 3));
  tune.train.config.keep_activations = false;
  EXPECT_EQ(alone, numbers(tune, again));
}

TEST_F(TunedModel, EndsInTheSameBytesWhereverItWasKilled) {
  const TuneStage tune = stage(AdapterKind::kDora);
  FileTrainingStore whole(folder("whole"));
  const std::vector<float> wanted = numbers(tune, whole);
  for (std::size_t saves = 1; saves < 6; ++saves) {
    const fs::path work = folder("killed" + std::to_string(saves));
    KilledStore killed(work, saves);
    EXPECT_THROW((void)numbers(tune, killed), Error);
    FileTrainingStore store(work);
    EXPECT_EQ(numbers(tune, store), wanted) << saves;
  }
}

TEST_F(TunedModel, BeginsDifferentlyInEveryLinearAndWithEverySeed) {
  TuneStage tune = stage(AdapterKind::kLora);
  const auto first = adapters_of(tune, arch_);
  EXPECT_EQ(first.size(), arch_.linear_names().size());
  std::set<std::uint64_t> seeds;
  for (const auto& [name, config] : first) seeds.insert(config.seed);
  EXPECT_EQ(seeds.size(), first.size());
  tune.adapter.seed = 1;
  for (const auto& [name, config] : adapters_of(tune, arch_)) {
    EXPECT_NE(config.seed, first.at(name).seed);
  }
}

void expect_refused(const TuneStage& tune, const Architecture& arch,
                    const std::string& why) {
  try {
    (void)adapters_of(tune, arch);
    ADD_FAILURE() << why;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(why), std::string::npos)
        << error.what();
  }
}

TEST_F(TunedModel, RefusesWhatCannotLearn) {
  TuneStage tune = stage(AdapterKind::kLora);
  tune.adapter.rank = 13;  // k_proj and v_proj have 12 outputs
  expect_refused(tune, arch_, "'rank' 13 is above 12");
  tune.layers.ignore = {"k_proj", "v_proj"};
  EXPECT_EQ(adapters_of(tune, arch_).size(), 10u);
  tune.layers.targets = {"k_proj"};
  expect_refused(tune, arch_, "leave no Linear");
  tune.layers = {.targets = {"q_proj", "lm_head"}};
  expect_refused(tune, arch_, "'lm_head'");
}

}  // namespace
}  // namespace llmpress
