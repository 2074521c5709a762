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
  explicit RandomModel(const RandomModelJob& job)
      : job_(job),
        rng_(job.seed),
        config_(without_quantization(
            job.config_json.empty() ? read_file(job.config) : job.config_json)),
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
    for (const auto& [name, content] : job_.files) {
      writer_->add_file(name, content);
    }
    writer_->finish(config_);
  }

 private:
  std::string without_quantization(const std::string& config) const {
    auto json = nlohmann::ordered_json::parse(config);
    json["torch_dtype"] = job_.dtype == DType::kF32    ? "float32"
                          : job_.dtype == DType::kBF16 ? "bfloat16"
                                                       : "float16";
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
        plain = plain && !(linear.storage && lies_otherwise(linear));
      }
    }
    if (plain) return;
    fail(ErrorCode::kUnsupported,
         "random weights for model_type '{}' are not in this version",
         arch_.model_type);
  }

  // Whether `<name>.weight` [out, in] would not do.
  static bool lies_otherwise(const LinearSpec& linear) {
    return linear.storage->transposed ||
           linear.storage->tensor == linear.name + ".weight";
  }

  // Row by row, each from a stream of its own.
  void matrix_of_streams(const std::string& name, std::size_t rows,
                         std::size_t cols, double deviation) {
    NamedTensor tensor{
        .name = name, .dtype = job_.dtype, .shape = {rows, cols}};
    const std::size_t row_bytes = bytes_of(job_.dtype, cols);
    tensor.bytes.resize(rows * row_bytes);
    const std::uint64_t stream = rng_.next();
    // The sum of four uniform numbers in [0, 2^16) has a variance of 2^32 / 3.
    const auto scale = static_cast<float>(deviation * std::sqrt(3) / 65536);
    job_.pool->for_ranges(rows, 64, [&](std::size_t begin, std::size_t end) {
      std::vector<float> values(cols);
      for (std::size_t r = begin; r < end; ++r) {
        Rng rng(stream + r);
        for (float& v : values) {
          const std::uint64_t bits = rng.next();
          const auto sum =
              static_cast<float>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                 (bits >> 32 & 0xffff) + (bits >> 48));
          v = (sum - 2 * 65535.0f) * scale;
        }
        encode_floats(
            job_.dtype, values,
            std::span(tensor.bytes).subspan(r * row_bytes, row_bytes));
      }
    });
    writer_->add_tensor(tensor);
  }

  void matrix(const std::string& name, std::size_t rows, std::size_t cols,
              double deviation) {
    if (job_.pool != nullptr) {
      return matrix_of_streams(name, rows, cols, deviation);
    }
    std::vector<float> values(rows * cols);
    for (float& v : values) v = static_cast<float>(rng_.normal() * deviation);
    writer_->add_tensor(rounded_tensor(name, job_.dtype, {rows, cols}, values));
  }

  void vector(const std::string& name, std::size_t size, float value) {
    writer_->add_tensor(float_tensor(name, job_.dtype, {size},
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

  const RandomModelJob& job_;
  Rng rng_;
  std::string config_;
  Architecture arch_;
  std::unique_ptr<ArtifactWriter> writer_;
};

}  // namespace

void write_random_model(const RandomModelJob& job) { RandomModel(job).write(); }

}  // namespace llmpress
