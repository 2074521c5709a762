#include "compress/pipeline/adapters/adapter_extract.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/model/block.h"
#include "compress/model/tensor_places.h"
#include "formats/adapters/peft_adapter.h"

namespace llmpress {
namespace {

double squared_norm(std::span<const float> values) {
  double sum = 0;
  for (const float v : values) sum += static_cast<double>(v) * v;
  return sum;
}

class Extraction {
 public:
  Extraction(const Checkpoint& base, const Checkpoint& tuned,
             const Architecture& arch, const AdapterExtractOptions& options,
             ThreadPool& pool)
      : base_(base),
        tuned_(tuned),
        arch_(arch),
        options_(options),
        pool_(pool) {}

  ExtractReport run() {
    check(options_.config);
    const std::size_t total = arch_.linear_names().size();
    std::size_t done = 0;
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      for (std::size_t l = 0; l < arch_.block(layer).linears.size(); ++l) {
        report(options_.progress, {.phase = "extract",
                                   .done = done++,
                                   .total = total,
                                   .detail = arch_.linear_name(layer, l)});
        add_linear(layer, l);
      }
    }
    report(options_.progress,
           {.phase = "extract", .done = total, .total = total});
    add_others();
    if (modules_.empty()) {
      fail(ErrorCode::kInvalidInput,
           "{} and {} have the same Linears: there is nothing to extract",
           tuned_.path(), base_.path());
    }
    write_peft_adapter(
        options_.output, modules_,
        {.base_model = base_.path().string(), .dtype = options_.dtype});
    report_.captured_energy = total_ > 0 ? captured_ / total_ : 1;
    return std::move(report_);
  }

 private:
  void add_linear(std::size_t layer, std::size_t linear) {
    const std::string name = arch_.linear_name(layer, linear);
    const LinearWeights from = read_block_linear(base_, arch_, layer, linear);
    const LinearWeights to = read_block_linear(tuned_, arch_, layer, linear);
    const MatrixF W = dequantize(from.weight);
    const ExtractedLora lora = extract(name, W, dequantize(to.weight));
    const double norm = std::sqrt(squared_norm(W.data()));
    report_.layers.push_back(
        {.name = name,
         .out = W.rows(),
         .in = W.cols(),
         .rank = lora.A.rows(),
         .change_norm = lora.change_norm,
         .relative_change = norm > 0 ? lora.change_norm / norm : 0,
         .captured_energy = lora.captured_energy});
    const double energy = lora.change_norm * lora.change_norm;
    total_ += energy;
    captured_ += energy * lora.captured_energy;
    if (!lora.A.empty()) {
      modules_[name].A = lora.A;
      modules_[name].B = lora.B;
    }
    if (from.bias != to.bias) add_bias(name, to.bias);
  }

  ExtractedLora extract(const std::string& name, const MatrixF& from,
                        const MatrixF& to) {
    try {
      return extract_lora(from.view(), to.view(), options_.config, pool_);
    } catch (const Error& e) {
      fail(e.code() == ErrorCode::kInvalidArgument ? ErrorCode::kInvalidInput
                                                   : e.code(),
           "Linear '{}': {}", name, e.what());
    }
  }

  void add_bias(const std::string& name, const std::vector<float>& bias) {
    if (!options_.save_others) {
      report_.left_out.push_back(name + ".bias");
      return;
    }
    modules_[name].bias =
        PeftReplacement{.shape = {bias.size()}, .values = bias};
    report_.saved.push_back(name + ".bias");
  }

  // Embedding, head and norms.
  void add_others() {
    add_other(arch_.embedding, arch_.embedding, arch_.embedding);
    add_head();
    if (!arch_.final_norm.empty()) {
      add_other(arch_.final_norm, arch_.final_norm, arch_.final_norm);
    }
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      for (const NormSpec& norm : arch_.block(layer).norms) {
        const std::string name = arch_.block_name(layer) + "." + norm.name;
        add_other(name, name, name);
      }
    }
  }

  // A head that is tied changes with its embedding. Beside the base an adapter
  // changes that one alone, so that the head has to be saved too.
  void add_head() {
    const Architecture tuned = read_architecture(tuned_);
    add_other(arch_.head, arch_.tied_head ? arch_.embedding : arch_.head,
              tuned.tied_head ? arch_.embedding : arch_.head);
  }

  // `base_name` and `tuned_name`: what the models have in its place.
  void add_other(const std::string& module, const std::string& base_name,
                 const std::string& tuned_name) {
    const std::optional<PeftReplacement> from = whole(base_, base_name);
    std::optional<PeftReplacement> to = whole(tuned_, tuned_name);
    const bool comparable = from && to && from->shape == to->shape;
    if (comparable && from->values == to->values) return;
    if (!comparable || !options_.save_others) {
      report_.left_out.push_back(module);
      return;
    }
    modules_[module].weight = std::move(to);
    report_.saved.push_back(module);
  }

  static std::optional<PeftReplacement> whole(const Checkpoint& checkpoint,
                                              const std::string& module) {
    if (checkpoint.has_linear(module)) {
      const MatrixF W = dequantize(checkpoint.read_linear(module).weight);
      return PeftReplacement{.shape = {W.rows(), W.cols()},
                             .values = {W.data().begin(), W.data().end()}};
    }
    const TensorInfo* info = checkpoint.tensors().find(module + ".weight");
    if (info == nullptr) return std::nullopt;
    const MatrixF values = read_matrix(checkpoint.tensors(), info->name);
    return PeftReplacement{
        .shape = info->shape,
        .values = {values.data().begin(), values.data().end()}};
  }

  const Checkpoint& base_;
  const Checkpoint& tuned_;
  const Architecture& arch_;
  const AdapterExtractOptions& options_;
  ThreadPool& pool_;
  std::map<std::string, PeftModule> modules_;
  ExtractReport report_;
  double total_ = 0, captured_ = 0;
};

}  // namespace

ExtractReport extract_adapter(const Checkpoint& base, const Checkpoint& tuned,
                              const Architecture& arch,
                              const AdapterExtractOptions& options,
                              ThreadPool& pool) {
  return Extraction(base, tuned, arch, options, pool).run();
}

std::string to_json(const ExtractReport& report) {
  auto layers = nlohmann::ordered_json::array();
  for (const ExtractedLayer& l : report.layers) {
    layers.push_back({{"name", l.name},
                      {"out", l.out},
                      {"in", l.in},
                      {"rank", l.rank},
                      {"change_norm", l.change_norm},
                      {"relative_change", l.relative_change},
                      {"captured_energy", l.captured_energy}});
  }
  return nlohmann::ordered_json({{"captured_energy", report.captured_energy},
                                 {"saved", report.saved},
                                 {"left_out", report.left_out},
                                 {"layers", std::move(layers)}})
      .dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace llmpress
