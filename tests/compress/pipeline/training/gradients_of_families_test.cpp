// Gradients of whole models against torch.autograd: of every tensor of every
// golden its norm and its product with a fixed direction (make_gradients.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "compress/model/training/trainable_model.h"
#include "compress/pipeline/training/learned_weights.h"
#include "distill/objective.h"
#include "distill/optimizers/parameter_optimizer.h"
#include "formats/checkpoints/checkpoint.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const fs::path kGoldens =
    fs::path(source_dir()) / "tests/compress/model/goldens";

std::vector<std::string> goldens_with_gradients() {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(kGoldens)) {
    if (fs::exists(entry.path() / "gradients.json")) {
      names.insert(entry.path().filename());
    }
  }
  return {names.begin(), names.end()};
}

TrainingBatch batch_of(const fs::path& folder) {
  const auto reader = open_tensors(folder / "expected.safetensors");
  const TensorInfo& info = reader->require("input_ids");
  const TensorBytes data = reader->read(info);
  TrainingBatch batch;
  for (std::size_t i = 0; i < data.bytes.size(); i += sizeof(std::int64_t)) {
    std::int64_t id = 0;
    std::memcpy(&id, data.bytes.data() + i, sizeof(id));
    batch.input.tokens.push_back(static_cast<TokenId>(id));
  }
  batch.input.sequences = {batch.input.tokens.size()};
  for (std::size_t i = 1; i < batch.input.tokens.size(); ++i) {
    batch.targets.push_back(static_cast<std::int32_t>(batch.input.tokens[i]));
  }
  batch.targets.push_back(-1);
  return batch;
}

struct Summary {
  double norm = 0, along = 0;
};

Summary summary_of(const TensorReader& reader, const TensorInfo& info) {
  std::vector<float> values(info.bytes / bytes_of(info.dtype, 1));
  decode_floats(info.dtype, reader.read(info).bytes, values);
  Summary s;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto hash = static_cast<std::uint32_t>(i * 2654435761u);
    const auto v = static_cast<double>(values[i]);
    s.norm += v * v;
    s.along += v * (static_cast<double>(hash) / 2147483648.0 - 1);
  }
  s.norm = std::sqrt(s.norm);
  return s;
}

class GradientsOfFamilies : public ::testing::TestWithParam<std::string> {};

Json read_json(const fs::path& path) {
  std::ifstream file(path);
  return Json::parse(file);
}

bool is_unchanged(const Checkpoint& base, const Checkpoint& changed,
                  const std::string& name) {
  const auto bytes = [&](const Checkpoint& checkpoint) {
    const TensorReader& reader = checkpoint.tensors();
    return reader.read(reader.require(name));
  };
  const TensorBytes a = bytes(base), b = bytes(changed);
  return std::ranges::equal(a.bytes, b.bytes);
}

// `changed` laid over the checkpoint has tensors of these norms and products.
void expect_tensors(const Checkpoint& checkpoint, const Architecture& arch,
                    std::span<const Parameter> changed, const Json& expected,
                    double tolerance) {
  CheckpointEdits edits = learned_weights(arch, changed);
  edits.dtype = DType::kF32;
  const auto learned = overlay(checkpoint, std::move(edits));
  double total = 0;
  for (const auto& [name, values] : expected.items()) {
    total += std::pow(values.at(0).get<double>(), 2);
  }
  const double least = 1e-6 * std::sqrt(total);
  for (const auto& [name, values] : expected.items()) {
    const auto norm = values.at(0).get<double>();
    const auto along = values.at(1).get<double>();
    const TensorInfo& info = learned->tensors().require(name);
    // A table that torch keeps as a buffer, and nothing here learns.
    if (norm == 0 && is_unchanged(checkpoint, *learned, name)) continue;
    const Summary found = summary_of(learned->tensors(), info);
    EXPECT_NEAR(found.norm, norm, tolerance * norm + least) << name;
    EXPECT_NEAR(found.along, along, 2 * tolerance * norm + least) << name;
  }
}

TEST_P(GradientsOfFamilies, AreThoseOfTorch) {
  const fs::path folder = kGoldens / GetParam();
  const auto checkpoint = open_checkpoint(folder);
  const Json expected = read_json(folder / "gradients.json");
  ThreadPool pool(2);
  TrainableModel model(*checkpoint, {});
  const TrainingBatch batch = batch_of(folder);
  const LossTerms loss =
      text_objective(0)->run(model, batch, 1, Gradients::kAdd, pool);
  const auto wanted = expected.at("loss").get<double>();
  EXPECT_NEAR(loss.total, wanted, 1e-5 * wanted);
  std::vector<Parameter> gradients = model.parameters();
  for (Parameter& parameter : gradients) parameter.value = parameter.gradient;
  // Of float32 sums in another order.
  expect_tensors(*checkpoint, model.architecture(), gradients,
                 expected.at("tensors"), 2e-4);
  if (!expected.contains("step")) return;
  const Json& step = expected.at("step");
  ParameterOptimizer optimizer(model.parameters(), {.weight_decay = 0.1,
                                                    .beta1 = 0.9,
                                                    .beta2 = 0.95,
                                                    .epsilon = 1e-5,
                                                    .clip = 1.0});
  const double norm = optimizer.step(1, 1e-3, pool);
  EXPECT_NEAR(norm, step.at("norm").get<double>(), 1e-5 * norm);
  expect_tensors(*checkpoint, model.architecture(), model.parameters(),
                 step.at("tensors"), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Goldens, GradientsOfFamilies,
                         ::testing::ValuesIn(goldens_with_gradients()),
                         [](const auto& row) { return row.param; });

}  // namespace
}  // namespace llmpress
