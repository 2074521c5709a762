// Terms of distillation beside differences and each other.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "distill/losses/top_k_selection.h"
#include "distill/objective.h"
#include "distill/on_policy.h"
#include "tests/compress/model/tiny_model.h"

namespace llmpress {
namespace {

const TinyShape kStudent{};

TinyShape wide_teacher() {
  TinyShape shape = kStudent;
  shape.hidden = 32;
  shape.layers = 4;
  shape.vocabulary = 40;  // padded
  return shape;
}

std::unique_ptr<Checkpoint> checkpoint_of(const TinyShape& shape,
                                          std::uint64_t seed) {
  return std::make_unique<MemoryCheckpoint>(tiny_tensors(shape, seed),
                                            config_json(shape));
}

TrainingData some_data(std::size_t length = 8) {
  Rng rng(4);
  std::vector<std::vector<TokenId>> documents;
  for (std::size_t d = 0; d < 9; ++d) {
    std::vector<TokenId> document(5 + 2 * d);
    for (TokenId& t : document) {
      t = static_cast<TokenId>(rng.below(kStudent.vocabulary));
    }
    documents.push_back(std::move(document));
  }
  return {documents, length};
}

struct Bench {
  explicit Bench(const DistillConfig& distill,
                 const TinyShape& of_teacher = wide_teacher(),
                 const TrainableOptions& options = {})
      : config(distill),
        student_checkpoint(checkpoint_of(kStudent, 5)),
        teacher_checkpoint(checkpoint_of(of_teacher, 6)),
        model(*student_checkpoint, options),
        decoder(*teacher_checkpoint),
        teacher(config, decoder, kStudent.vocabulary, best_isa()),
        objective(distill_objective({.config = config,
                                     .student = &model,
                                     .teacher = &teacher,
                                     .running = &teacher,
                                     .stops = {7}})) {}

  LossTerms run(const TrainingBatch& batch, Gradients gradients) {
    model.clear_gradients(pool);
    return objective->run(model, batch, 1, gradients, pool);
  }

  DistillConfig config;
  ThreadPool pool{2};
  std::unique_ptr<Checkpoint> student_checkpoint, teacher_checkpoint;
  TrainableModel model;
  Decoder decoder;
  RunningTeacher teacher;
  std::unique_ptr<Objective> objective;
};

// The gradient of every tensor along itself and along a wave, by differences.
void expect_gradients(Bench& bench, const TrainingBatch& batch) {
  bench.run(batch, Gradients::kAdd);
  std::vector<std::vector<float>> gradients;
  for (const Parameter& p : bench.model.parameters()) {
    gradients.emplace_back(p.gradient.begin(), p.gradient.end());
  }
  constexpr float kStep = 2e-3f;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const Parameter p = bench.model.parameters()[i];
    const auto shifted = [&](float by) {
      for (std::size_t j = 0; j < p.value.size(); ++j) {
        p.value[j] += by * std::sin(static_cast<float>(3 * j + 1));
      }
      bench.model.values_changed(bench.pool);
    };
    double along = 0;
    for (std::size_t j = 0; j < p.value.size(); ++j) {
      along += double{gradients[i][j]} *
               std::sin(static_cast<double>(static_cast<float>(3 * j + 1)));
    }
    shifted(kStep);
    const double above = bench.run(batch, Gradients::kAdd).total;
    shifted(-2 * kStep);
    const double below = bench.run(batch, Gradients::kAdd).total;
    shifted(kStep);
    const double difference = (above - below) / (2 * double{kStep});
    EXPECT_NEAR(along, difference, 2e-3 + 2e-2 * std::abs(difference))
        << p.name;
  }
}

TrainingBatch first_sequences(const TrainingData& data) {
  const std::size_t indices[] = {0, 1, 2};
  return data.batch(indices);
}

TEST(DistillObjective, RelationsHaveTheGradientsOfTheirDifferences) {
  const TrainingData data = some_data();
  for (const RelationKind kind : {RelationKind::kAll, RelationKind::kQueries,
                                  RelationKind::kKeys, RelationKind::kValues}) {
    Bench bench({.cross_entropy = 0,
                 .divergence = 0,
                 .relation = 2,
                 .relation_of = kind,
                 .relation_block = kind == RelationKind::kKeys ? 1u : 0u});
    const LossTerms terms = bench.run(first_sequences(data), Gradients::kAdd);
    EXPECT_GT(terms.relation, 1e-3);
    EXPECT_DOUBLE_EQ(terms.total, 2 * terms.relation);
    expect_gradients(bench, first_sequences(data));
    EXPECT_NEAR(bench.run(first_sequences(data), Gradients::kNone).relation,
                terms.relation, 1e-6);
  }
}

TEST(DistillObjective, ARelationToOneselfIsNothing) {
  const TrainingData data = some_data();
  Bench bench({.relation = 1}, kStudent);
  TinyTensors same = tiny_tensors(kStudent, 5);
  const MemoryCheckpoint own(same, config_json(kStudent));
  const Decoder decoder(own);
  RunningTeacher teacher(bench.config, decoder, kStudent.vocabulary,
                         best_isa());
  const auto objective = distill_objective({.config = bench.config,
                                            .student = &bench.model,
                                            .teacher = &teacher,
                                            .running = &teacher});
  const LossTerms terms = objective->run(bench.model, first_sequences(data), 1,
                                         Gradients::kNone, bench.pool);
  EXPECT_NEAR(terms.relation, 0, 1e-7);
  EXPECT_NEAR(terms.divergence, 0, 1e-7);
}

TEST(DistillObjective, RefusesRelationsThatAreNotThere) {
  EXPECT_THROW(Bench({.relation = 1, .relation_block = 3}), Error);
  EXPECT_THROW(Bench({.relation = 1, .relation_heads = 5}), Error);
  EXPECT_THROW(Bench({.top_k = 32}), Error);  // of 31 tokens that both have
}

TEST(DistillObjective, TopKOfAllTokensIsTheWholeDivergence) {
  const TrainingData data = some_data();
  const TrainingBatch batch = first_sequences(data);
  Bench whole({.cross_entropy = 0, .divergence = 1, .temperature = 2});
  Bench all({.cross_entropy = 0,
             .divergence = 1,
             .temperature = 2,
             .top_k = kStudent.vocabulary});
  Bench few(
      {.cross_entropy = 0, .divergence = 1, .temperature = 2, .top_k = 4});
  const double wanted = whole.run(batch, Gradients::kNone).divergence;
  EXPECT_NEAR(all.run(batch, Gradients::kNone).divergence, wanted,
              1e-5 * wanted);
  // A coarser view.
  EXPECT_LT(few.run(batch, Gradients::kNone).divergence, wanted);
  expect_gradients(few, batch);
}

TEST(DistillObjective, WhatWasStoredTeachesTheSameBytes) {
  const TrainingData data = some_data();
  Bench live({.top_k = 5});
  // All rows of all sequences, as a file would hold them.
  std::vector<std::size_t> indices(data.sequences());
  std::iota(indices.begin(), indices.end(), std::size_t{0});
  const TrainingBatch all = data.batch(indices);
  std::vector<Segment> segments;
  for (const std::size_t rows : all.input.sequences) {
    segments.push_back({.rows = rows});
  }
  const MatrixF hidden =
      live.decoder.forward(all.input.tokens, segments, live.pool);
  const MatrixF wide = live.decoder.ends().logits(hidden.view(), live.pool);
  MatrixF T(wide.rows(), kStudent.vocabulary);
  for (std::size_t r = 0; r < T.rows(); ++r) {
    std::ranges::copy(wide.row(r).first(T.cols()), T.row(r).begin());
  }
  const TopKRows rows = select_top_k(std::as_const(T).view(), 5, 1, live.pool);
  StoredTeacher stored(
      live.config,
      [&](const TrainingData&, std::size_t sequence, std::size_t token) {
        const std::size_t at = sequence * data.sequence_length() + token;
        return StoredRow{rows.ids.row(at), rows.values.row(at),
                         rows.log_rest[at]};
      },
      kStudent.vocabulary, best_isa());
  const auto from_file = distill_objective(
      {.config = live.config, .student = &live.model, .teacher = &stored});
  const std::size_t drawn[] = {3, 1};
  const TrainingBatch batch = data.batch(drawn);
  const LossTerms a = live.run(batch, Gradients::kAdd);
  std::vector<std::vector<float>> gradients;
  for (const Parameter& p : live.model.parameters()) {
    gradients.emplace_back(p.gradient.begin(), p.gradient.end());
  }
  live.model.clear_gradients(live.pool);
  const LossTerms b =
      from_file->run(live.model, batch, 1, Gradients::kAdd, live.pool);
  EXPECT_EQ(a.total, b.total);
  for (std::size_t p = 0; p < gradients.size(); ++p) {
    EXPECT_TRUE(
        std::ranges::equal(gradients[p], live.model.parameters()[p].gradient));
  }
}

TEST(TopKSelection, TakesTheLargestAndWeighsTheRest) {
  ThreadPool pool(1);
  const MatrixF T({1, 3, 2, 3, -1, 0}, 1, 6);
  const TopKRows top = select_top_k(T.view(), 3, 2, pool);
  EXPECT_TRUE(
      std::ranges::equal(top.ids.row(0), std::vector<std::uint32_t>{1, 3, 2}));
  EXPECT_TRUE(
      std::ranges::equal(top.values.row(0), std::vector<float>{3, 3, 2}));
  EXPECT_NEAR(top.log_rest[0],
              std::log(std::exp(0.5) + std::exp(-0.5) + std::exp(0.0)), 1e-6);
  EXPECT_EQ(select_top_k(T.view(), 6, 2, pool).log_rest[0], -INFINITY);
  const MatrixF bad({1, NAN}, 1, 2);
  EXPECT_THROW((void)select_top_k(bad.view(), 1, 1, pool), Error);
}

TEST(OnPolicy, IsDrawnByTheBatchAlone) {
  TrainingData data = some_data();
  std::size_t written = 0;
  for (std::size_t i = 0; i < 400; ++i) {
    const TrainingBatch batch = data.shuffled(9, 2 * i, 2);
    EXPECT_EQ(is_written(batch, 0.3), is_written(batch, 0.3));
    if (is_written(batch, 0.3)) ++written;
    EXPECT_FALSE(is_written(batch, 0));
    EXPECT_TRUE(is_written(batch, 1));
  }
  // Four deviations of a binomial around 120.
  EXPECT_NEAR(static_cast<double>(written), 120, 37);
  const std::size_t indices[] = {0};
  EXPECT_FALSE(is_written(data.batch(indices), 1));
}

TEST(OnPolicy, GoesOnFromThePromptWithWhatTheStudentWouldSay) {
  TrainingData data = some_data(12);
  const auto checkpoint = checkpoint_of(kStudent, 5);
  TrainableModel model(*checkpoint, {});
  ThreadPool one(1), three(3);
  const TrainingBatch batch = data.shuffled(2, 0, 4);
  const WritingConfig config{.share = 1,
                             .prompt = 3,
                             .temperature = 1e-2,
                             .vocabulary = 30,
                             .stops = {}};
  const TrainingBatch written = written_batch(model, batch, config, one);
  EXPECT_EQ(written.input.sequences, batch.input.sequences);
  EXPECT_EQ(written.input.tokens,
            written_batch(model, batch, config, three).input.tokens);
  // At no temperature the most probable token follows, by a whole pass.
  const MatrixF hidden = model.forward(written.input, one);
  const MatrixF logits = model.ends().logits(hidden.view(), one);
  std::size_t scored = 0, agreeing = 0, row = 0;
  for (const std::size_t rows : written.input.sequences) {
    for (std::size_t t = 0; t < rows; ++t, ++row) {
      const std::size_t prompt =
          std::min<std::size_t>(3, std::max<std::size_t>(1, rows - 1));
      if (t < prompt) {
        EXPECT_EQ(written.input.tokens[row], batch.input.tokens[row]);
      }
      EXPECT_EQ(written.targets[row] >= 0, t + 1 >= prompt && t + 1 < rows);
      if (written.targets[row] < 0) continue;
      EXPECT_EQ(static_cast<TokenId>(written.targets[row]),
                written.input.tokens[row + 1]);
      const auto z = logits.row(row).first(30);
      const auto best = std::ranges::max_element(z) - z.begin();
      ++scored;
      if (best == written.targets[row]) ++agreeing;
    }
  }
  EXPECT_GT(scored, 20u);
  EXPECT_GE(agreeing + 1, scored);  // near ties may fall either way
}

TEST(OnPolicy, EndsAtAStopAndDrawsByProbability) {
  TrainingData data = some_data(12);
  const auto checkpoint = checkpoint_of(kStudent, 5);
  TrainableModel model(*checkpoint, {});
  ThreadPool pool(2);
  std::set<TokenId> seen;
  for (std::size_t i = 0; i < 8; ++i) {
    const TrainingBatch batch = data.shuffled(2, 4 * i, 4);
    const TrainingBatch written =
        written_batch(model, batch,
                      {.share = 1,
                       .prompt = 1,
                       .temperature = 3,
                       .vocabulary = kStudent.vocabulary,
                       .stops = {7}},
                      pool);
    std::size_t at = 0;
    for (std::size_t s = 0; s < written.input.sequences.size(); ++s) {
      const std::size_t rows = written.input.sequences[s];
      for (std::size_t t = 1; t < rows; ++t) {
        seen.insert(written.input.tokens[at + t]);
        if (t + 1 == rows) continue;
        EXPECT_NE(written.input.tokens[at + t], 7u);
      }
      if (rows < batch.input.sequences[s]) {
        EXPECT_EQ(written.input.tokens[at + rows - 1], 7u);
      }
      at += rows;
    }
  }
  EXPECT_GT(seen.size(), 20u);
}

TEST(OnPolicy, OnlyTheTeacherJudgesWhatWasWritten) {
  TrainingData data = some_data();
  Bench bench({.cross_entropy = 0.5,
               .divergence = 0.5,
               .kind = DivergenceKind::kReverse,
               .on_policy = 1,
               .on_policy_prompt = 2});
  const LossTerms terms = bench.run(data.shuffled(1, 0, 3), Gradients::kAdd);
  EXPECT_EQ(terms.on_policy, 1);
  EXPECT_EQ(terms.cross_entropy, 0);
  EXPECT_GT(terms.divergence, 0);
  EXPECT_DOUBLE_EQ(terms.total, 0.5 * terms.divergence);
  // Evaluations are of the text.
  const LossTerms measured = bench.run(first_sequences(data), Gradients::kNone);
  EXPECT_EQ(measured.on_policy, 0);
  EXPECT_GT(measured.cross_entropy, 0);
}

TEST(Dropout, OfThePassHasTheGradientsOfItsDifferences) {
  TrainingData data = some_data();
  const TrainingBatch batch = data.shuffled(3, 0, 3);
  for (const auto& [residual, attention] :
       {std::pair(0.3f, 0.0f), std::pair(0.0f, 0.4f)}) {
    Bench bench(
        {.cross_entropy = 1, .divergence = 0}, wide_teacher(),
        {.learning = {.dropout = residual, .attention_dropout = attention},
         .keep_activations = residual > 0});
    const LossTerms whole = bench.run(batch, Gradients::kNone);
    const LossTerms dropped = bench.run(batch, Gradients::kAdd);
    EXPECT_NE(whole.cross_entropy, dropped.cross_entropy);
    EXPECT_EQ(bench.run(batch, Gradients::kAdd).total, dropped.total);
    EXPECT_NE(bench.run(data.shuffled(4, 0, 3), Gradients::kAdd).total,
              dropped.total);
    EXPECT_EQ(bench.run(batch, Gradients::kNone).cross_entropy,
              whole.cross_entropy);
    expect_gradients(bench, batch);
  }
}

}  // namespace
}  // namespace llmpress
