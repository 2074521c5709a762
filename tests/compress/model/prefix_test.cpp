// Keys and values that stand before every sequence.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "compress/model/decoder.h"
#include "compress/model/prefix_places.h"
#include "compress/model/tensor_places.h"
#include "compress/model/training/trainable_model.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/places.h"

namespace llmpress {
namespace {

class FixedPrefix final : public WeightCompanion {
 public:
  explicit FixedPrefix(std::vector<BlockPrefix> prefix)
      : prefix_(std::move(prefix)) {}
  std::unique_ptr<LinearKernel> beside(
      const std::string& /*name*/, const LinearWeights& /*weights*/,
      std::unique_ptr<LinearKernel> kernel) const override {
    return kernel;
  }
  void change_embedding(std::span<const TokenId> /*tokens*/,
                        MatrixView<float> /*X*/) const override {}
  std::vector<BlockPrefix> prefix() const override { return prefix_; }

 private:
  std::vector<BlockPrefix> prefix_;
};

// Qwen 2 with biases, and a window narrower than prefix and text.
class Prefix : public testing::TestWithParam<std::string> {
 protected:
  Prefix()
      : shape_{.model_type = GetParam() == "window" ? "mistral" : "qwen2",
               .qkv_bias = GetParam() != "window",
               .more_json = GetParam() == "window" ? R"(, "sliding_window": 6)"
                                                   : std::string()},
        base_(tiny_tensors(shape_, 5), config_json(shape_)),
        arch_(read_architecture(base_)),
        text_(random_tokens(13, shape_.vocabulary, 2)) {}

  std::vector<BlockPrefix> prefix_of_tokens(std::span<const TokenId> tokens) {
    const ModelEnds ends(base_, arch_, best_isa());
    const Segment all{.rows = tokens.size()};
    return prefix_of(base_, arch_, ends.begin(tokens, {&all, 1}, pool_),
                     best_isa(), pool_);
  }

  std::vector<BlockPrefix> random_prefix(std::size_t tokens) {
    Rng rng(11);
    std::vector<BlockPrefix> prefix(arch_.layers, BlockPrefix(1));
    for (BlockPrefix& block : prefix) {
      for (MatrixF* const part : {&block[0].keys, &block[0].values}) {
        *part = MatrixF(tokens, shape_.kv_heads * shape_.head_dim);
        for (float& x : part->data()) x = static_cast<float>(rng.normal());
      }
    }
    return prefix;
  }

  Decoder decoder(std::vector<BlockPrefix> prefix, KvFormat kv = {}) {
    return Decoder(
        base_, {.kv = kv,
                .companion = std::make_shared<FixedPrefix>(std::move(prefix))});
  }

  TinyShape shape_;
  MemoryCheckpoint base_;
  Architecture arch_;
  std::vector<TokenId> text_;
  ThreadPool pool_{2};
};

void expect_near(ConstMatrixView found, ConstMatrixView wanted, float most) {
  ASSERT_EQ(found.rows(), wanted.rows());
  for (std::size_t i = 0; i < wanted.data().size(); ++i) {
    ASSERT_NEAR(found.data()[i], wanted.data()[i], most) << i;
  }
}

TEST_P(Prefix, OfATextsOwnBeginningIsThatText) {
  const Decoder plain(base_);
  const Segment all{.rows = text_.size()};
  const MatrixF whole = plain.forward(text_, {&all, 1}, pool_);
  const std::span<const TokenId> text = text_;
  const Decoder behind = decoder(prefix_of_tokens(text.first(4)));
  EXPECT_EQ(behind.prefix_tokens(), 4u);
  const auto rest = text.subspan(4);
  const Segment alone{.rows = rest.size()};
  const MatrixF found = behind.forward(rest, {&alone, 1}, pool_);
  expect_near(found.view(), whole.view().rows_slice(4, rest.size()), 1e-4f);
}

TEST_P(Prefix, IsTheSameWithCachesAndWithSeveralSequences) {
  const Decoder behind = decoder(random_prefix(3));
  const std::span<const TokenId> text = text_;
  const std::vector<Segment> two{{.rows = 5}, {.rows = 8}};
  const MatrixF both = behind.forward(text, two, pool_);
  KvCache first = behind.make_cache(5), second = behind.make_cache(8);
  EXPECT_EQ(first.tokens(), 3u);
  for (std::size_t t = 0; t < text.size(); ++t) {
    KvCache& cache = t < 5 ? first : second;
    const Segment one{1, cache.tokens(), &cache};
    const MatrixF row = behind.forward(text.subspan(t, 1), {&one, 1}, pool_);
    expect_near(row.view(), both.view().rows_slice(t, 1), 1e-4f);
  }
}

TEST_P(Prefix, IsRoundedAsTheCacheRoundsIt) {
  const Decoder behind = decoder(random_prefix(3), {.type = KvType::kInt8});
  const Segment all{.rows = text_.size()};
  const MatrixF whole = behind.forward(text_, {&all, 1}, pool_);
  KvCache cache = behind.make_cache(text_.size());
  const Segment kept{text_.size(), 3, &cache};
  const MatrixF cached = behind.forward(text_, {&kept, 1}, pool_);
  expect_near(cached.view(), whole.view(), 1e-4f);
}

// The loss of a text behind what `learning` says, and all gradients.
struct Pass {
  double loss = 0;
  std::map<std::string, std::vector<float>> gradients{};
};

class Losses {
 public:
  Losses(const Checkpoint& base, const ModelLearning& learning,
         std::vector<TokenId> text)
      : model_(base, {.learning = learning}), text_(std::move(text)) {}

  TrainableModel& model() { return model_; }

  Pass run(std::size_t threads = 2) {
    ThreadPool pool(threads);
    model_.clear_gradients(pool);
    Pass pass{.loss = model_.run_backward(batch(), loss(), pool)};
    for (const Parameter& p : model_.parameters()) {
      pass.gradients[p.name].assign(p.gradient.begin(), p.gradient.end());
    }
    return pass;
  }
  double value() {
    ThreadPool pool(2);
    model_.values_changed(pool);
    return model_.loss(batch(), loss(), pool);
  }

 private:
  TokenBatch batch() const {
    return {.tokens = text_, .sequences = {5, text_.size() - 5}};
  }
  // A fixed direction of all logits, in double.
  BatchLoss loss() {
    weights_.assign(text_.size(), 1);
    BatchLoss loss{.row_weights = weights_};
    loss.logits = [](std::size_t first, ConstMatrixView Z,
                     MatrixView<float> G) {
      double sum = 0;
      for (std::size_t r = 0; r < Z.rows(); ++r) {
        for (std::size_t c = 0; c < Z.cols(); ++c) {
          const double w =
              std::sin(static_cast<double>((first + r) * Z.cols() + c));
          sum += w * static_cast<double>(Z(r, c));
          if (G.size() != 0) G(r, c) += static_cast<float>(w);
        }
      }
      return sum;
    };
    return loss;
  }

  TrainableModel model_;
  std::vector<TokenId> text_;
  std::vector<float> weights_{};
};

// Of the numbers of every parameter the difference quotient in one direction.
void expect_gradients(Losses& losses) {
  const Pass pass = losses.run();
  for (Parameter& p : losses.model().parameters()) {
    Rng rng(p.value.size());
    std::vector<float> direction(p.value.size()),
        was(p.value.begin(), p.value.end());
    double wanted = 0;
    for (std::size_t i = 0; i < direction.size(); ++i) {
      direction[i] = static_cast<float>(rng.normal());
      wanted += static_cast<double>(direction[i]) *
                static_cast<double>(pass.gradients.at(p.name)[i]);
    }
    const auto at = [&](float step) {
      for (std::size_t i = 0; i < was.size(); ++i) {
        p.value[i] = was[i] + step * direction[i];
      }
      return losses.value();
    };
    constexpr float kStep = 4e-3f;
    const double found = (at(kStep) - at(-kStep)) / (2 * double{kStep});
    (void)at(0);
    EXPECT_NEAR(found, wanted, 5e-3 * std::fabs(wanted) + 2e-2) << p.name;
  }
}

TEST_P(Prefix, HasTheGradientsOfDifferences) {
  Losses losses(base_,
                {.prefix = [&](std::size_t l) { return random_prefix(3)[l]; }},
                text_);
  EXPECT_EQ(losses.model().parameters().size(), 2 * arch_.layers);
  expect_gradients(losses);
}

TEST_P(Prefix, LeavesTheGradientsOfWhatElseLearnsRight) {
  const auto prefix = random_prefix(3);
  Losses losses(base_,
                {.learns =
                     [](const std::string& name) {
                       return name.ends_with("k_proj.weight") ||
                              name.ends_with("input_layernorm.weight");
                     },
                 .prefix = [&](std::size_t l) { return prefix[l]; }},
                text_);
  EXPECT_GE(losses.model().parameters().size(), 4 * arch_.layers);
  expect_gradients(losses);
}

TEST_P(Prefix, HasTheSameGradientsAtAnyNumberOfThreads) {
  const auto prefix = random_prefix(3);
  Losses losses(base_, {.prefix = [&](std::size_t l) { return prefix[l]; }},
                text_);
  const Pass one = losses.run(1), three = losses.run(3);
  EXPECT_EQ(one.loss, three.loss);
  EXPECT_EQ(one.gradients, three.gradients);
}

TEST_P(Prefix, OfAPromptIsWhatThePromptMeans) {
  MatrixF prompt(3, shape_.hidden);
  Rng rng(4);
  for (float& x : prompt.data()) x = static_cast<float>(rng.normal());
  Losses losses(base_, {.prompt = prompt}, text_);
  expect_gradients(losses);
  const MatrixF stream = losses.model().forward(
      {.tokens = text_, .sequences = {5, text_.size() - 5}}, pool_);
  const Decoder behind =
      decoder(prefix_of(base_, arch_, {.hidden = prompt}, best_isa(), pool_));
  const std::vector<Segment> two{{.rows = 5}, {.rows = text_.size() - 5}};
  expect_near(behind.forward(text_, two, pool_).view(), stream.view(), 1e-4f);
}

INSTANTIATE_TEST_SUITE_P(Models, Prefix, testing::Values("plain", "window"),
                         [](const auto& row) { return row.param; });

TEST(PrefixPlaces, AreRefusedForOtherShapes) {
  const MemoryCheckpoint base(tiny_tensors(TinyShape{}, 1),
                              config_json(TinyShape{}));
  BlockPrefix wrong(1);
  wrong[0].keys = MatrixF(2, 5);
  wrong[0].values = MatrixF(2, 5);
  EXPECT_THROW(Decoder(base, {.companion = std::make_shared<FixedPrefix>(
                                  std::vector<BlockPrefix>(2, wrong))}),
               Error);
}

TEST(PrefixPlaces, AreRefusedWhereAStateIsKept) {
  const auto mamba = open_checkpoint(std::filesystem::path(source_dir()) /
                                     "tests/compress/model/goldens/jamba");
  const Architecture arch = read_architecture(*mamba);
  EXPECT_THROW((void)uniform_prefix_shape(arch), Error);
  EXPECT_THROW(check_prompt_possible(arch), Error);
}

}  // namespace
}  // namespace llmpress
