#include "compress/pipeline/conversion/conversion.h"

#include <nlohmann/json.hpp>
#include <set>

#include "compress/core/formatted.h"
#include "compress/model/architecture.h"
#include "compress/model/block_weights.h"
#include "compress/model/model_check.h"
#include "compress/model/tensor_places.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/typed_tensors.h"
#include "quantizers/ggml_rounding.h"

namespace llmpress {
namespace {

bool is_blocks(GgmlType type) { return !facts(type).plain.has_value(); }

double bits_of(GgmlType type) {
  const GgmlTypeFacts& f = facts(type);
  return 8.0 * static_cast<double>(f.bytes) / static_cast<double>(f.elements);
}

class Conversion {
 public:
  Conversion(const Checkpoint& checkpoint, const ConversionOptions& options,
             ThreadPool& pool)
      : checkpoint_(checkpoint),
        options_(options),
        pool_(pool),
        arch_(read_architecture(checkpoint)),
        writer_(make_artifact_writer(
            {.output = options.output,
             .format = options.format,
             .source = checkpoint.path(),
             .modules = module_names(checkpoint, arch_)})) {}

  ConversionReport run() {
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      convert_block(layer);
    }
    convert_end(arch_.embedding, arch_.tied_head);
    if (!arch_.tied_head) convert_end(arch_.head, true);
    copy_tensors();
    writer_->finish(config());
    check_written();
    return std::move(report_);
  }

 private:
  void convert_block(std::size_t layer) {
    const BlockSpec& block = arch_.block(layer);
    report(options_.progress,
           {.phase = "convert", .done = layer, .total = arch_.layers});
    for (std::size_t i = 0; i < block.linears.size(); ++i) {
      const LinearSpec& spec = block.linears[i];
      const bool shared =
          shared_tensor(checkpoint_, arch_.block_name(layer), spec) != nullptr;
      const bool whole = !shared || spec.storage->rows == 0;
      const auto type = spec.role == LinearRole::kPlain && whole ? options_.type
                                                                 : std::nullopt;
      // Plain numbers that stay such are copied with the other tensors.
      if (shared && !(type && is_blocks(*type))) continue;
      const std::string name = arch_.linear_name(layer, i);
      convert_linear(name, read_block_linear(checkpoint_, arch_, layer, i),
                     type);
      if (shared) {
        done_.insert(arch_.block_name(layer) + "." + spec.storage->tensor);
      }
    }
  }

  std::optional<GgmlType> end_type(bool is_head) const {
    if (options_.ends_type) return options_.ends_type;
    const auto type = options_.type;
    if (type && is_head && is_blocks(*type) &&
        bits_of(*type) < bits_of(GgmlType::kQ6_K)) {
      return GgmlType::kQ6_K;
    }
    return type;
  }

  void convert_end(const std::string& name, bool is_head) {
    convert_linear(name, checkpoint_.read_linear(name), end_type(is_head));
  }

  void convert_linear(const std::string& name, LinearWeights linear,
                      std::optional<GgmlType> type) {
    const bool dense = std::holds_alternative<DenseWeight>(linear.weight);
    // Codes become numbers where that is asked for; numbers anything.
    if (type && (dense || !is_blocks(*type))) {
      linear.weight = rounded(name, linear.weight, *type);
    } else if (const auto* const blocks =
                   std::get_if<GgmlWeight>(&linear.weight)) {
      if (options_.format != "gguf") linear.weight = unpacked(name, *blocks);
    }
    report_.bytes += stored_bytes(linear.weight);
    ++report_.linears;
    writer_->add_linear(name, linear);
    done_.insert(name + ".bias");
    const std::string prefix = name + ".weight";
    for (const TensorInfo& info : checkpoint_.tensors().tensors()) {
      if (info.name.starts_with(prefix)) done_.insert(info.name);
    }
  }

  PackedWeight rounded(const std::string& name, const PackedWeight& weight,
                       GgmlType type) {
    const MatrixF W = dequantize(weight);
    if (const auto plain = facts(type).plain)
      return make_dense(W.view(), *plain);
    PackedWeight result = round_to_fitting_ggml(W.view(), type, pool_);
    if (const std::string is = describe(result); is != facts(type).name) {
      report_.notes.push_back(
          formatted("{}: {} inputs are no whole number of {} blocks; stored as "
                    "{}",
                    name, W.cols(), facts(type).name, is));
    }
    return result;
  }

  // For a format that knows no blocks: the same codes, or the same numbers.
  PackedWeight unpacked(const std::string& name,
                        const GgmlWeight& blocks) const {
    const bool plain = options_.format == "safetensors";
    if (!plain) {
      if (auto packed = unpacked_from_blocks(blocks)) return *std::move(packed);
    }
    const auto dtype =
        options_.type ? facts(*options_.type).plain : std::nullopt;
    if (!dtype && !plain) {
      fail(ErrorCode::kUnsupported,
           "Linear '{}': blocks of {} have no form in {}; give --type f32, or "
           "write gguf or safetensors",
           name, describe(blocks), options_.format);
    }
    return make_dense(dequantize(blocks).view(), dtype.value_or(DType::kF32));
  }

  void copy_tensors() {
    for (const TensorInfo& info : checkpoint_.tensors().tensors()) {
      if (done_.contains(info.name) || belongs_to_done(info.name)) continue;
      const TensorBytes data = checkpoint_.tensors().read(info);
      writer_->add_tensor({.name = info.name,
                           .dtype = info.dtype,
                           .shape = info.shape,
                           .bytes = {data.bytes.begin(), data.bytes.end()}});
      report_.bytes += info.bytes;
      ++report_.tensors;
    }
  }

  // Parts of a packed Linear have names of their own ("q_proj.weight_scale").
  bool belongs_to_done(const std::string& name) const {
    const std::size_t at = name.rfind('.');
    return at != std::string::npos &&
           done_.contains(name.substr(0, at) + ".bias") &&
           name.substr(at) != ".bias";
  }

  std::string config() const {
    auto json = nlohmann::ordered_json::parse(checkpoint_.config_json());
    const auto plain =
        options_.type ? facts(*options_.type).plain : std::nullopt;
    if (plain) json["torch_dtype"] = facts(*plain).torch_name;
    return json.dump(2);
  }

  // What a format says of the model in words of its own must mean the same.
  void check_written() const {
    const auto written = open_checkpoint(options_.output);
    const Architecture found = read_architecture(*written);
    bool same = found.layers == arch_.layers && found.hidden == arch_.hidden &&
                found.vocabulary == arch_.vocabulary &&
                found.tied_head == arch_.tied_head &&
                found.embedding_scale == arch_.embedding_scale &&
                found.logit_scale == arch_.logit_scale &&
                found.logit_softcap == arch_.logit_softcap &&
                same_norm(found.final_norm_options, arch_.final_norm_options) &&
                found.ropes.size() == arch_.ropes.size();
    for (std::size_t l = 0; same && l < arch_.layers; ++l) {
      same = same_program(found.block(l), arch_.block(l));
    }
    for (std::size_t r = 0; same && r < arch_.ropes.size(); ++r) {
      same = same_rope(found.ropes[r], arch_.ropes[r]);
    }
    if (same) return;
    std::error_code ignored;
    std::filesystem::remove_all(options_.output, ignored);
    fail(ErrorCode::kUnsupported,
         "{}: {} cannot say all that config.json says of this model",
         checkpoint_.path(), options_.format);
  }

  static bool same_norm(const NormOptions& a, const NormOptions& b) {
    return a.kind == b.kind && a.epsilon == b.epsilon && a.bias == b.bias &&
           a.offset == b.offset;
  }

  // Llama 3's scaling is stored as the divisors that follow from it.
  static bool same_rope(const RopeConfig& found, const RopeConfig& wanted) {
    if (wanted.scaling == RopeScaling::kLlama3 &&
        found.scaling == RopeScaling::kLongRope) {
      return found.dim == wanted.dim && static_cast<float>(found.theta) ==
                                            static_cast<float>(wanted.theta);
    }
    return found.dim == wanted.dim && found.scaling == wanted.scaling &&
           static_cast<float>(found.theta) ==
               static_cast<float>(wanted.theta) &&
           static_cast<float>(found.factor) ==
               static_cast<float>(wanted.factor) &&
           static_cast<float>(found.attention_factor) ==
               static_cast<float>(wanted.attention_factor);
  }

  const Checkpoint& checkpoint_;
  const ConversionOptions& options_;
  ThreadPool& pool_;
  Architecture arch_;
  std::unique_ptr<ArtifactWriter> writer_;
  std::set<std::string> done_{};  // tensors that need not be copied
  ConversionReport report_{};
};

}  // namespace

std::optional<PackedWeight> unpacked_from_blocks(const GgmlWeight& weight) {
  const int bits = weight.type == GgmlType::kQ4_0   ? 4
                   : weight.type == GgmlType::kQ5_0 ? 5
                   : weight.type == GgmlType::kQ8_0 ? 8
                                                    : 0;
  const bool mxfp4 = weight.type == GgmlType::kMxfp4;
  if (bits == 0 && !mxfp4) return std::nullopt;
  const GgmlTypeFacts& f = facts(weight.type);
  const std::size_t groups = weight.in / f.elements;
  Matrix<std::uint8_t> codes(weight.out, weight.in);
  std::vector<float> scales;
  std::vector<std::uint8_t> exponents;
  for (std::size_t o = 0; o < weight.out; ++o) {
    for (std::size_t g = 0; g < groups; ++g) {
      const GgmlBlock block = unpack_ggml_block(
          weight.type, weight.row(o).subspan(g * f.bytes, f.bytes));
      scales.push_back(block.d);
      exponents.push_back(static_cast<std::uint8_t>(block.scale_codes[0]));
      std::copy_n(block.codes.begin(), f.elements,
                  codes.row(o).subspan(g * f.elements).begin());
    }
  }
  if (!mxfp4) {
    return GroupedIntWeight{.out = weight.out,
                            .in = weight.in,
                            .bits = bits,
                            .group_size = f.elements,
                            .symmetric = true,
                            .scale_dtype = DType::kF16,
                            .codes = pack_rows(codes.view(), bits),
                            .scales = std::move(scales)};
  }
  MicroFp4Weight micro{.out = weight.out,
                       .in = weight.in,
                       .kind = MicroFp4Kind::kMxfp4,
                       .scales = std::move(exponents)};
  for (std::size_t i = 0; i < codes.size(); i += 2) {
    micro.codes.push_back(
        static_cast<std::uint8_t>(codes.data()[i] | codes.data()[i + 1] << 4));
  }
  return micro;
}

ConversionReport convert_model(const Checkpoint& checkpoint,
                               const ConversionOptions& options,
                               ThreadPool& pool) {
  if (options.type && is_blocks(*options.type) && options.format != "gguf") {
    fail(ErrorCode::kInvalidArgument,
         "{} is a block type of GGUF, which {} does not hold",
         facts(*options.type).name, options.format);
  }
  return Conversion(checkpoint, options, pool).run();
}

}  // namespace llmpress
