#include "compress/pipeline/training/random_model.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/core/rng.h"
#include "compress/model/architecture.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

constexpr double kDeviation = 0.02;

class RandomModel {
 public:
  RandomModel(const RandomModelJob& job)
      : rng_(job.seed),
        config_(without_quantization(read_file(job.config))),
        arch_(parse_architecture(config_, job.config.string())),
        writer_(make_artifact_writer({.output = job.output,
                                      .format = "safetensors",
                                      .source = job.source})) {}

  void write() {
    check_family();
    write_ends();
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      write_block(layer);
    }
    writer_->finish(config_);
  }

 private:
  static std::string without_quantization(const std::string& config) {
    auto json = nlohmann::ordered_json::parse(config);
    json["torch_dtype"] = "float32";
    json.erase("dtype");
    json.erase("quantization_config");
    return json.dump(2);
  }

  void check_family() const {
    bool plain = arch_.layer_inputs.width == 0 &&
                 arch_.embedding_projection.empty() &&
                 arch_.head_projection.empty();
    for (const BlockSpec& kind : arch_.kinds) {
      plain = plain && kind.parameters.empty();
      for (const LinearSpec& linear : kind.linears) {
        plain = plain && !linear.storage;
      }
    }
    if (plain) return;
    fail(ErrorCode::kUnsupported,
         "random weights for model_type '{}' are not in this version",
         arch_.model_type);
  }

  void matrix(const std::string& name, std::size_t rows, std::size_t cols,
              double deviation) {
    std::vector<float> values(rows * cols);
    for (float& v : values) v = static_cast<float>(rng_.normal() * deviation);
    writer_->add_tensor(float_tensor(name, DType::kF32, {rows, cols}, values));
  }

  void vector(const std::string& name, std::size_t size, float value) {
    writer_->add_tensor(float_tensor(name, DType::kF32, {size},
                                     std::vector<float>(size, value)));
  }

  void norm(const std::string& name, std::size_t width, float offset,
            bool bias) {
    vector(name + ".weight", width, 1 - offset);
    if (bias) vector(name + ".bias", width, 0);
  }

  void write_ends() {
    matrix(arch_.embedding + ".weight", arch_.vocabulary, arch_.input_width(),
           kDeviation);
    if (!arch_.position_embedding.empty()) {
      matrix(arch_.position_embedding + ".weight",
             arch_.max_positions + arch_.position_offset, arch_.hidden,
             kDeviation);
    }
    const auto end_norm = [&](const std::string& name,
                              const NormOptions& options) {
      if (name.empty() || options.weightless) return;
      norm(name, arch_.hidden, options.offset, options.bias);
    };
    end_norm(arch_.embedding_norm, arch_.embedding_norm_options);
    end_norm(arch_.final_norm, arch_.final_norm_options);
    if (!arch_.tied_head) {
      matrix(arch_.head + ".weight", arch_.vocabulary, arch_.input_width(),
             kDeviation);
    }
    if (arch_.head_bias) vector(arch_.head + ".bias", arch_.vocabulary, 0);
  }

  // Linears whose outputs enter the stream by a sum.
  static bool writes_stream(const BlockSpec& block, std::size_t linear) {
    return block.linears[linear].out == block.values[0].width &&
           std::ranges::any_of(block.operations, [&](const Operation& op) {
             const auto* const kind = std::get_if<LinearOp>(&op.kind);
             return kind != nullptr &&
                    std::ranges::count(kind->linears, linear) != 0 &&
                    block.values[op.out[0]].axis == Axis::kHidden;
           });
  }

  void write_block(std::size_t layer) {
    const BlockSpec& block = arch_.block(layer);
    const double narrow =
        kDeviation / std::sqrt(2 * static_cast<double>(arch_.layers));
    for (std::size_t l = 0; l < block.linears.size(); ++l) {
      const LinearSpec& linear = block.linears[l];
      const std::string name = arch_.linear_name(layer, l);
      matrix(name + ".weight", linear.out, linear.in,
             writes_stream(block, l) ? narrow : kDeviation);
      if (linear.bias) vector(name + ".bias", linear.out, 0);
    }
    for (const NormSpec& spec : block.norms) {
      norm(arch_.block_name(layer) + "." + spec.name, spec.width, spec.offset,
           spec.bias);
    }
  }

  Rng rng_;
  std::string config_;
  Architecture arch_;
  std::unique_ptr<ArtifactWriter> writer_;
};

}  // namespace

void write_random_model(const RandomModelJob& job) { RandomModel(job).write(); }

}  // namespace llmpress
