// Small random models with calibration tokens, for the tests of structured
// pruning.
#pragma once

#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "compress/model/decoder.h"
#include "compress/pipeline/run/structured_pruning.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {

inline CalibrationSet random_calibration(std::size_t vocabulary,
                                         std::size_t samples = 12,
                                         std::size_t length = 32) {
  CalibrationSet set;
  for (std::size_t s = 0; s < samples; ++s) {
    set.sequences.push_back(random_tokens(length, vocabulary, 100 + s));
  }
  return set;
}

inline MatrixF logits_of(const Checkpoint& checkpoint, ThreadPool& pool) {
  const Decoder decoder(checkpoint);
  const auto tokens =
      random_tokens(40, decoder.architecture().vocabulary, /*seed=*/7);
  const Segment segment{.rows = tokens.size()};
  const MatrixF hidden = decoder.forward(tokens, {&segment, 1}, pool);
  return decoder.ends().logits(hidden.view(), pool);
}

// A model in memory, pruned into a folder.
class PrunedModel {
 public:
  PrunedModel(const TinyShape& shape, const TinyTensors& tensors,
              const PruneConfig& config, std::size_t threads = 2)
      : pool_(threads),
        base_(tensors, config_json(shape)),
        arch_(parse_architecture(base_.config_json(), "tiny")),
        calibration_(random_calibration(shape.vocabulary)) {
    const PruneStage stage{.config = config};
    prune_structure({.checkpoint = &base_,
                     .arch = &arch_,
                     .stage = &stage,
                     .calibration = &calibration_,
                     .output = path(),
                     .pool = &pool_});
    reduced_ = open_checkpoint(path());
    reduced_arch_ = parse_architecture(reduced_->config_json(), "reduced");
    check_model(*reduced_, reduced_arch_);
  }

  std::filesystem::path path() const { return directory_.path() / "reduced"; }
  const Checkpoint& base() const { return base_; }
  const Architecture& base_arch() const { return arch_; }
  const Checkpoint& checkpoint() const { return *reduced_; }
  const Architecture& arch() const { return reduced_arch_; }
  std::vector<LayerReport> report() const {
    return read_structured_report(path());
  }

  // |logits of the reduced model - logits of the base| / |logits of the base|.
  double difference() {
    const MatrixF a = logits_of(base_, pool_), b = logits_of(*reduced_, pool_);
    double squared = 0, energy = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double d =
          static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i]);
      squared += d * d;
      energy += static_cast<double>(a.data()[i]) * a.data()[i];
    }
    return std::sqrt(squared / energy);
  }

  // Of the residual stream behind the last block, over what it adds.
  double last_error() const { return report().back().relative_error; }

 private:
  TemporaryDirectory directory_;
  ThreadPool pool_;
  MemoryCheckpoint base_;
  Architecture arch_;
  CalibrationSet calibration_;
  std::unique_ptr<Checkpoint> reduced_;
  Architecture reduced_arch_;
};

}  // namespace llmpress
