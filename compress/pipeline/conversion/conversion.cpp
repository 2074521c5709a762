#include "compress/pipeline/conversion/conversion.h"

#include <nlohmann/json.hpp>
#include <set>

#include "compress/core/formatted.h"
#include "compress/model/architecture.h"
#include "compress/model/block_weights.h"
#include "compress/model/model_files.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/conversion/conversion_check.h"
#include "compress/pipeline/conversion/packed_forms.h"
#include "compress/pipeline/run/linear_store.h"
#include "compress/pipeline/run/resume_store.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/encoded_linear.h"
#include "quantizers/ggml_rounding.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

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
        format_(find_output_format(options.format)),
        pool_(pool),
        arch_(read_architecture(checkpoint)),
        writer_(
            make_artifact_writer({.output = options.output,
                                  .format = options.format,
                                  .source = checkpoint.path(),
                                  .modules = module_names(checkpoint, arch_),
                                  .pool = &pool})) {
    // Made with the first Linear that is rounded.
    if (options.resume && fs::exists(resume_path(options.output))) open_kept();
  }

  ConversionReport run() {
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      convert_block(layer);
    }
    convert_end(arch_.embedding, arch_.tied_head);
    if (!arch_.tied_head) convert_end(arch_.head, true);
    copy_tensors();
    writer_->finish(config());
    check_written();
    discard_kept();
    return std::move(report_);
  }

  void discard_kept() {
    if (resume_) resume_->remove();
  }

 private:
  void open_kept() {
    resume_.emplace(options_.output, *options_.resume);
    kept_.emplace(resume_->directory() / "converted");
  }

  void keep(std::size_t index, const LinearWeights& linear,
            const LayerReport& change) {
    if (!options_.resume) return;
    if (!kept_) open_kept();
    kept_->save(index, linear, change);
  }

  void convert_block(std::size_t layer) {
    const BlockSpec& block = arch_.block(layer);
    for (const ParameterSpec& parameter : block.parameters) {
      parameters_.insert(arch_.block_name(layer) + "." + parameter.name);
    }
    report(options_.progress,
           {.phase = "convert", .done = layer, .total = arch_.layers});
    for (std::size_t i = 0; i < block.linears.size(); ++i) {
      const LinearSpec& spec = block.linears[i];
      const bool shared =
          shared_tensor(checkpoint_, arch_.block_name(layer), spec) != nullptr;
      const bool apart = stands_apart(spec);
      const bool whole = !shared || apart || spec.storage->rows == 0;
      const auto type = spec.role == LinearRole::kPlain && whole ? options_.type
                                                                 : std::nullopt;
      // Plain numbers that stay such are copied with the other tensors.
      if (shared && !apart && !(type && is_blocks(*type))) continue;
      const std::string name = arch_.linear_name(layer, i);
      convert_linear(name, read_block_linear(checkpoint_, arch_, layer, i),
                     type);
      if (shared || apart)
        add_done(arch_.block_name(layer) + ".", *spec.storage);
    }
  }

  // GGUF has stacks of its own, which the experts go into one by one.
  bool stands_apart(const LinearSpec& spec) const {
    return options_.format == "gguf" && spec.storage && spec.storage->index;
  }

  void add_done(const std::string& block, const LinearStorage& storage) {
    for (const char* part : {"", "_blocks", "_scales"}) {
      done_.insert(block + storage.tensor + part);
    }
    if (!storage.bias_tensor.empty()) done_.insert(block + storage.bias_tensor);
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
    const std::size_t index = report_.linears++;
    if (kept_ && kept_->has(index)) {
      LinearOutcome done = kept_->load(index);
      note_change(done.report, linear.input, done.weights.input);
      linear = std::move(done.weights);
    } else {
      const ActivationQuant input = linear.input;
      if (const auto change = change_form(name, linear, type)) {
        keep(index, linear, *change);
        note_change(*change, input, linear.input);
      } else {
        exact_.insert(name);
      }
    }
    report_.bytes += stored_bytes(linear.weight);
    writer_->add_linear(name, linear);
    done_.insert(name + ".bias");
    const std::string prefix = name + ".weight";
    for (const TensorInfo& info : checkpoint_.tensors().tensors()) {
      if (info.name.starts_with(prefix)) done_.insert(info.name);
    }
  }

  // Absent: as exact as it was. Else `method` says from what and `format` to
  // what, `relative_error` is |W' - W|_F / |W|_F.
  std::optional<LayerReport> change_form(const std::string& name,
                                         LinearWeights& linear,
                                         std::optional<GgmlType> type) {
    const bool dense = std::holds_alternative<DenseWeight>(linear.weight);
    bool exact = true;
    // Codes become numbers where that is asked for; numbers anything.
    const bool rounds = type && (dense || !is_blocks(*type));
    const PackedWeight stored =
        rounds ? std::move(linear.weight) : linear.weight;
    LayerReport change{.name = name};
    if (rounds) {
      linear.weight = rounded(name, stored, *type, change.notes);
      exact = false;
    } else if (const auto* const blocks = std::get_if<GgmlWeight>(&stored)) {
      if (!format_.blocks) {
        exact = unpack(name, *blocks, linear.weight);
      }
    }
    if (is_end(name)) keep_readable(name, linear.weight, change.notes);
    if (options_.allow_lossy) exact &= make_storable(name, linear);
    if (exact) {
      add_notes(change.notes);
      return std::nullopt;
    }
    change.method = describe(stored);
    change.format = describe(linear.weight);
    change.relative_error = relative_difference(linear.weight, stored, pool_);
    return change;
  }

  void add_notes(const std::vector<std::string>& notes) {
    report_.notes.insert(report_.notes.end(), notes.begin(), notes.end());
  }

  bool is_end(const std::string& name) const {
    return name == arch_.embedding || name == arch_.head;
  }

  // For loaders that look tokens up in plain numbers only; none but GGUF's does
  // it in blocks.
  void keep_readable(const std::string& name, PackedWeight& weight,
                     std::vector<std::string>& notes) const {
    const bool plain_only =
        format_.plain_ends ||
        (std::holds_alternative<GgmlWeight>(weight) && !format_.blocks);
    if (!plain_only || std::holds_alternative<DenseWeight>(weight)) return;
    notes.push_back(
        formatted("{}: {} decoded to f32, which loaders of {} look tokens up "
                  "in; --ends-type bf16 halves it",
                  name, describe(weight), format_.name));
    weight = make_dense(dequantize(weight).view(), DType::kF32);
  }

  // False where `linear` had to be rounded to what the format holds.
  bool make_storable(const std::string& name, LinearWeights& linear) const {
    std::string refusal = formatted("Linear '{}': {} has no form in {}", name,
                                    describe(linear.weight), options_.format);
    if (format_.blocks || !std::holds_alternative<GgmlWeight>(linear.weight)) {
      try {
        encode_linear(options_.format, name, linear);
        return true;
      } catch (const Error& error) {
        if (error.code() != ErrorCode::kUnsupported) throw;
        refusal = error.what();
      }
    }
    LinearWeights changed = linear;
    if (!format_.rounds_inputs) changed.input = {};
    for (PackedWeight& form : nearest_forms(linear, options_.format, pool_)) {
      changed.weight = std::move(form);
      try {
        encode_linear(options_.format, name, changed);
      } catch (const Error& error) {
        if (error.code() != ErrorCode::kUnsupported) throw;
        continue;
      }
      linear = std::move(changed);
      return false;
    }
    throw Error(ErrorCode::kUnsupported, refusal);
  }

  void note_change(const LayerReport& change, const ActivationQuant& before,
                   const ActivationQuant& after) {
    add_notes(change.notes);
    if (before != after) ++report_.inputs_unrounded;
    for (RoundedLinears& rounded : report_.rounded) {
      if (rounded.from != change.method || rounded.to != change.format)
        continue;
      ++rounded.linears;
      if (change.relative_error > rounded.largest_error) {
        rounded.largest_error = change.relative_error;
        rounded.largest = change.name;
      }
      return;
    }
    report_.rounded.push_back({.from = change.method,
                               .to = change.format,
                               .linears = 1,
                               .largest_error = change.relative_error,
                               .largest = change.name});
  }

  PackedWeight rounded(const std::string& name, const PackedWeight& weight,
                       GgmlType type, std::vector<std::string>& notes) const {
    if (const auto plain = facts(type).plain)
      return make_dense(dequantize(weight).view(), *plain);
    PackedWeight result = round_to_fitting_ggml(weight, type, pool_);
    if (const std::string is = describe(result); is != facts(type).name) {
      notes.push_back(
          formatted("{}: {} inputs are no whole number of {} blocks; stored as "
                    "{}",
                    name, cols_of(weight), facts(type).name, is));
    }
    return result;
  }

  // For a format that knows no blocks: the same codes, or the same numbers.
  // Whether nothing is lost.
  bool unpack(const std::string& name, const GgmlWeight& blocks,
              PackedWeight& weight) const {
    const bool plain = options_.format == "safetensors";
    if (!plain) {
      if (auto packed = unpacked_from_blocks(blocks)) {
        weight = *std::move(packed);
        return true;
      }
    }
    const auto dtype =
        options_.type ? facts(*options_.type).plain : std::nullopt;
    if (!dtype && !plain) {
      // As keep_readable() or make_storable() sees fit.
      if (options_.allow_lossy || is_end(name)) return true;
      fail(ErrorCode::kUnsupported,
           "Linear '{}': blocks of {} have no form in {}; give --type f32, or "
           "--allow-lossy, or write gguf or safetensors",
           name, describe(blocks), options_.format);
    }
    const DType wanted = dtype.value_or(DType::kF32);
    weight = make_dense(dequantize(blocks).view(), wanted);
    return wanted == DType::kF32;
  }

  void copy_tensors() {
    for (const TensorInfo& info : checkpoint_.tensors().tensors()) {
      if (done_.contains(info.name) || belongs_to_done(info.name)) continue;
      if (is_left_out(info.name)) continue;
      const TensorBytes data = checkpoint_.tensors().read(info);
      writer_->add_tensor({.name = info.name,
                           .dtype = info.dtype,
                           .shape = info.shape,
                           .bytes = {data.bytes.begin(), data.bytes.end()}});
      report_.bytes += info.bytes;
      ++report_.tensors;
    }
  }

  // GGUF has a model's decoder alone.
  bool is_left_out(const std::string& name) {
    if (options_.format != "gguf" || arch_.config_object.empty() ||
        name.starts_with(arch_.body) || name.starts_with(arch_.head)) {
      return false;
    }
    if (left_out_++ == 0) {
      report_.notes.push_back(formatted(
          "{} and what else is no part of the decoder is left out: GGUF has it "
          "in a file of its own (mmproj), which llmpress does not write",
          name));
    }
    return true;
  }

  // Parts of a packed Linear have names of their own ("q_proj.weight_scale"),
  // but a parameter may stand beside a weight ("gate.e_score_correction_bias").
  bool belongs_to_done(const std::string& name) const {
    const std::size_t at = name.rfind('.');
    return at != std::string::npos &&
           done_.contains(name.substr(0, at) + ".bias") &&
           name.substr(at) != ".bias" && !parameters_.contains(name);
  }

  std::string config() const {
    auto json = nlohmann::ordered_json::parse(checkpoint_.config_json());
    const auto plain =
        options_.type ? facts(*options_.type).plain : std::nullopt;
    if (plain) json["torch_dtype"] = facts(*plain).torch_name;
    return json.dump(2);
  }

  void check_written() {
    try {
      check_conversion(checkpoint_, arch_, options_.output, exact_, pool_);
    } catch (const Error&) {
      std::error_code ignored;
      fs::remove_all(options_.output, ignored);
      discard_kept();
      throw;
    }
  }

  const Checkpoint& checkpoint_;
  const ConversionOptions& options_;
  const OutputFormat& format_;
  ThreadPool& pool_;
  Architecture arch_;
  std::unique_ptr<ArtifactWriter> writer_;
  std::optional<ResumeStore> resume_{};
  std::optional<LinearStore> kept_{};   // of Linears that were rounded
  std::size_t left_out_ = 0;            // tensors that are no part of it
  std::set<std::string> done_{};        // tensors that need not be copied
  std::set<std::string> parameters_{};  // tensors that no Linear has
  std::set<std::string> exact_{};  // Linears whose numbers must be the same
  ConversionReport report_{};
};

}  // namespace

std::string conversion_fingerprint(const fs::path& model,
                                   const ConversionOptions& options) {
  const auto name = [](const std::optional<GgmlType>& type) {
    return type ? facts(*type).name : "as stored";
  };
  return formatted(
      "\nprogram's version: {}\ncommand: convert\nmodel: {}\nformat: {}\ntype: "
      "{}\nends' type: {}\nwhat may be lost: {}\n",
      LLMPRESS_VERSION, sha256_hex(model_state(model)), options.format,
      name(options.type), name(options.ends_type),
      options.allow_lossy ? "what the format cannot hold" : "nothing");
}

ConversionReport convert_model(const Checkpoint& checkpoint,
                               const ConversionOptions& options,
                               ThreadPool& pool) {
  if (options.type && is_blocks(*options.type) && options.format != "gguf") {
    fail(ErrorCode::kInvalidArgument,
         "{} is a block type of GGUF, which {} does not hold",
         facts(*options.type).name, options.format);
  }
  Conversion conversion(checkpoint, options, pool);
  try {
    return conversion.run();
  } catch (const Error& error) {
    // Again it would come to the same.
    if (error.code() == ErrorCode::kUnsupported) conversion.discard_kept();
    throw;
  }
}

}  // namespace llmpress
