#include "formats/checkpoints/artifact_writer.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_sink.h"
#include "formats/checkpoints/carried_files.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/checkpoints/expert_stacks.h"
#include "formats/checkpoints/shard_file.h"
#include "formats/containers/safetensors.h"
#include "formats/files/path_location.h"
#include "formats/files/replaceable.h"
#include "formats/gguf/gguf_linears.h"
#include "formats/gguf/gguf_sink.h"
#include "formats/linears/awq.h"
#include "formats/linears/bitsandbytes.h"
#include "formats/linears/compressed_tensors.h"
#include "formats/linears/gptq.h"
#include "formats/linears/mlx.h"
#include "formats/linears/quantization_config.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;
using Described = std::map<std::string, DescribedLinear>;

// --- how each format encodes a Linear and describes the model
// -----------------

EncodedLinear encode_own(const std::string& name, const LinearWeights& linear,
                         DType) {
  return encode_compressed_tensors(name, linear);
}

EncodedLinear encode_plain(const std::string& name, const LinearWeights& linear,
                           DType) {
  EncodedLinear encoded = encode_compressed_tensors(name, linear);
  const bool dense = std::holds_alternative<DenseWeight>(linear.weight);
  if (dense && encoded.scheme != LinearScheme{}) {
    fail(ErrorCode::kUnsupported,
         "Linear '{}': plain safetensors cannot say that its inputs are {}; "
         "write compressed-tensors or hdf5{}",
         name, linear.input_hadamard > 0 ? "rotated" : "rounded",
         linear.input_hadamard > 0
             ? ""
             : ", or give the rounding up (convert --allow-lossy)");
  }
  if (!dense) {
    fail(ErrorCode::kUnsupported,
         "Linear '{}': {} cannot be stored as plain safetensors; write "
         "compressed-tensors or hdf5, or turn its codes into numbers (convert "
         "--type f32)",
         name, describe(linear.weight));
  }
  return encoded;
}

EncodedLinear encode_blocks(const std::string& name,
                            const LinearWeights& linear, DType) {
  return encode_gguf(name, linear);
}

std::string describe_own(const Described& linears,
                         const std::vector<std::string>& others,
                         const ModuleNames& modules, DType) {
  return compressed_tensors_config(linears, others, modules);
}

std::string describe_plain(const Described&, const std::vector<std::string>&,
                           const ModuleNames&, DType) {
  return {};
}

std::string describe_bitsandbytes(const Described& linears,
                                  const std::vector<std::string>& others,
                                  const ModuleNames&, DType compute) {
  BitsandbytesFacts found{.compute = std::string(facts(compute).torch_name),
                          .skipped = others};
  bool any = false;
  for (const auto& [name, linear] : linears) {
    const std::string& format = linear.scheme.format;
    if (format == "dense") {
      found.skipped.push_back(name);
      continue;
    }
    any = true;
    found.int8 = format == "bitsandbytes-int8";
    found.fp4 = format.starts_with("bitsandbytes-fp4");
    found.nested = format.ends_with("-nested");
    found.threshold = linear.extension.outlier_threshold;
  }
  return any ? bitsandbytes_config(found) : std::string();
}

EncodedLinear encode_as_gptq(const std::string& name,
                             const LinearWeights& linear, DType) {
  return encode_gptq(name, linear);
}

std::string describe_gptq(const Described& linears,
                          const std::vector<std::string>& others,
                          const ModuleNames& modules, DType) {
  return gptq_config(linears, others, modules);
}

EncodedLinear encode_as_awq(const std::string& name,
                            const LinearWeights& linear, DType) {
  return encode_awq(name, linear);
}

std::string describe_awq(const Described& linears,
                         const std::vector<std::string>& others,
                         const ModuleNames& modules, DType) {
  return awq_config(linears, others, modules);
}

EncodedLinear encode_as_mlx(const std::string& name,
                            const LinearWeights& linear, DType) {
  return encode_mlx(name, linear);
}

std::string describe_mlx(const Described& linears,
                         const std::vector<std::string>&, const ModuleNames&,
                         DType) {
  return mlx_config(linears);
}

// Of gpt-oss, whose experts lie in stacks: they come as tensors, and what comes
// as a Linear is plain.
EncodedLinear encode_beside_mxfp4(const std::string& name,
                                  const LinearWeights& linear, DType) {
  const auto* const micro = std::get_if<MicroFp4Weight>(&linear.weight);
  const bool expert = name.find(".experts.") != std::string::npos;
  const bool held = expert ? micro != nullptr &&
                                 micro->kind == MicroFp4Kind::kMxfp4 &&
                                 micro->in % micro->group() == 0
                           : std::holds_alternative<DenseWeight>(linear.weight);
  if (!held) {
    fail(
        ErrorCode::kUnsupported,
        "Linear '{}': {} {} cannot be stored in format '{}', which has experts "
        "of gpt-oss in MXFP4 and all else in plain numbers; write "
        "compressed-tensors",
        name, describe(linear.weight), expert ? "of an expert" : "",
        kMxfp4Format);
  }
  return encode_compressed_tensors(name, linear);
}

std::string describe_mxfp4(const Described&, const std::vector<std::string>&,
                           const ModuleNames&, DType) {
  return R"({"quant_method": "mxfp4", "modules_to_not_convert":
    ["model.layers.*.self_attn", "model.layers.*.mlp.router",
     "model.embed_tokens", "lm_head"]})";
}

struct FormatRow {
  OutputFormat facts;
  EncodedLinear (*encode)(const std::string&, const LinearWeights&, DType);
  std::string (*describe)(const Described&, const std::vector<std::string>&,
                          const ModuleNames&, DType);
  std::unique_ptr<ArtifactSink> (*open)(const ArtifactOptions&);
};

constexpr std::array kFormats{
    FormatRow{{.name = "compressed-tensors",
               .summary = "a folder that vLLM and transformers load",
               .kind = OutputKind::kFolder,
               .rounds_inputs = true},
              encode_own,
              describe_own,
              make_directory_sink},
    FormatRow{{.name = "hdf5",
               .summary = "the same tensors in one .h5 file",
               .kind = OutputKind::kHdf5File,
               .rounds_inputs = true,
               .blocks = true},
              encode_own,
              describe_own,
              make_hdf5_sink},
    FormatRow{{.name = "bitsandbytes",
               .summary = "a folder with NF4, FP4 or int8 Linears",
               .kind = OutputKind::kFolder,
               .one_scheme = true,
               .plain_ends = true},
              encode_bitsandbytes,
              describe_bitsandbytes,
              make_directory_sink},
    FormatRow{{.name = "gptq",
               .summary = "a folder as GPTQModel writes it",
               .kind = OutputKind::kFolder,
               .one_scheme = true,
               .plain_ends = true},
              encode_as_gptq,
              describe_gptq,
              make_directory_sink},
    FormatRow{{.name = "awq",
               .summary = "a folder as AutoAWQ writes it",
               .kind = OutputKind::kFolder,
               .one_scheme = true,
               .plain_ends = true},
              encode_as_awq,
              describe_awq,
              make_directory_sink},
    FormatRow{{.name = "mlx",
               .summary = "a folder that mlx-lm loads",
               .kind = OutputKind::kFolder,
               .expert_stacks = true},
              encode_as_mlx,
              describe_mlx,
              make_directory_sink},
    FormatRow{{.name = kMxfp4Format,
               .summary = "a folder as gpt-oss is published",
               .kind = OutputKind::kFolder},
              encode_beside_mxfp4,
              describe_mxfp4,
              make_directory_sink},
    FormatRow{{.name = "safetensors",
               .summary = "a folder with plain numbers only",
               .kind = OutputKind::kFolder},
              encode_plain,
              describe_plain,
              make_directory_sink},
    FormatRow{{.name = "gguf",
               .summary = "one .gguf file that llama.cpp loads",
               .kind = OutputKind::kGgufFile,
               .blocks = true},
              encode_blocks,
              describe_plain,
              make_gguf_sink},
};

constexpr auto kFormatFacts = [] {
  std::array<OutputFormat, kFormats.size()> all{};
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = kFormats[i].facts;
  return all;
}();

const FormatRow& row_of(std::string_view name) {
  return kFormats[static_cast<std::size_t>(&find_output_format(name) -
                                           kFormatFacts.data())];
}

// --- the writer
// ---------------------------------------------------------------

// config.json of the source, or nothing.
std::string source_config(const fs::path& source) {
  std::error_code ignored;
  const fs::path config = source / "config.json";
  return fs::is_regular_file(config, ignored) ? read_file(config)
                                              : std::string();
}

// The type that readers of the source compute in; F32 if it does not say.
DType compute_dtype(const std::string& config) {
  const auto json = nlohmann::json::parse(config, nullptr, false);
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (!json.is_object() || !json.contains(key) || !json[key].is_string()) {
      continue;
    }
    const auto dtype = parse_torch_dtype(json[key].get<std::string>());
    if (dtype == DType::kF16 || dtype == DType::kBF16) return *dtype;
  }
  return DType::kF32;
}

bool may_be_linear(const std::string& name,
                   const std::vector<std::size_t>& shape) {
  return shape.size() == 2 && name.ends_with(".weight") &&
         !is_embedding_name(name.substr(0, name.rfind('.')));
}

// The module that runs a stack of matrices [n, rows, cols] as Linears of its
// own (experts); empty: `tensor` is none.
std::string stack_owner(const std::string& name,
                        const std::vector<std::size_t>& shape) {
  const std::size_t dot = name.rfind('.');
  if (shape.size() != 3 || dot == std::string::npos ||
      name.ends_with(".weight")) {
    return {};
  }
  return name.substr(0, dot);
}

class Writer : public ArtifactWriter {
 public:
  explicit Writer(const ArtifactOptions& options)
      : row_(row_of(options.format)),
        source_(options.source),
        modules_(options.modules),
        sink_(options.passing_room != 0 ? make_passing_sink(options)
                                        : row_.open(options)) {
    const std::string config = source_config(source_);
    compute_ = compute_dtype(config);
    if (row_.facts.expert_stacks) stacks_ = find_stack_names(config);
  }

  void add_tensor(const NamedTensor& tensor) override {
    note_tensor(tensor.name, tensor.shape);
    sink_->put(tensor);
  }

  void add_stored_tensor(const StoredTensor& tensor) override {
    note_tensor(tensor.info.name, tensor.info.shape);
    sink_->put_stored(tensor);
  }

  void add_linear(std::string_view name, const LinearWeights& linear) override {
    const std::string key(name);
    check(linear.weight, "Linear '" + key + "'");
    EncodedLinear encoded = row_.encode(key, linear, compute_);
    if (row_.facts.one_scheme) check_alike(key, encoded);
    const auto place = stacks_ != nullptr ? place_of_expert(*stacks_, key)
                                          : std::optional<ExpertPlace>();
    if (place) return add_expert(*place, key, encoded);
    std::span<const NamedTensor> tensors = encoded.tensors;
    if (encoded.blocks) {
      sink_->put_blocks(tensors[0], *encoded.blocks);
      tensors = tensors.subspan(1);
    }
    for (const NamedTensor& tensor : tensors) sink_->put(tensor);
    linears_[key] = {std::move(encoded.scheme), encoded.extension};
  }

  bool add_stored_linear(std::string_view name,
                         const StoredLinears& stored) override {
    const auto& checkpoint = stored.checkpoint;
    const auto described = row_.encode == encode_own
                               ? checkpoint->describe_linear(name)
                               : std::nullopt;
    if (!described) return false;
    const std::string key(name), prefix = key + ".";
    const auto tensors = checkpoint->tensors().tensors();
    auto at = std::ranges::lower_bound(tensors, prefix, {}, &TensorInfo::name);
    for (; at != tensors.end() && at->name.starts_with(prefix); ++at) {
      const auto hash = stored.hashes.find(at->name);
      sink_->put_stored(
          {.info = *at,
           .read = [checkpoint,
                    info = *at] { return checkpoint->tensors().read(info); },
           .from = place_of(checkpoint->tensors(), *at),
           .hash = hash == stored.hashes.end() ? "" : hash->second});
    }
    linears_[key] = *described;
    return true;
  }

  void add_file(std::string_view name, std::string_view content) override {
    if (!is_plain_file_name(name)) {
      fail(ErrorCode::kInvalidArgument, "'{}' is not a plain file name", name);
    }
    files_[std::string(name)] = content;
  }

  void finish(const std::string& config_json) override {
    if (row_.facts.name == kMxfp4Format && !has_mxfp4_stack_) {
      fail(ErrorCode::kUnsupported,
           "format '{}' has stacks of experts in MXFP4, and this model has "
           "none; write compressed-tensors",
           kMxfp4Format);
    }
    stacker_.finish();
    // Its class is Linear in every model, whether it has a weight of its own or
    // shares the embedding's.
    if (!linears_.contains("lm_head")) others_.push_back("lm_head");
    std::sort(others_.begin(), others_.end());
    others_.erase(std::unique(others_.begin(), others_.end()), others_.end());
    auto files = carried_files(source_);
    for (auto& [name, content] : files_) files[name] = std::move(content);
    std::string& provenance = files[std::string(kProvenanceFile)];
    provenance = marked_json(provenance);
    files["config.json"] = with_quantization_config(
        config_json, row_.describe(linears_, others_, modules_, compute_));
    sink_->finish(files);
  }

 private:
  // A tensor that is not of a Linear's own.
  void note_tensor(const std::string& name,
                   const std::vector<std::size_t>& shape) {
    constexpr std::string_view kSuffix = ".weight";
    std::string owner = stack_owner(name, shape);
    if (row_.facts.name == kMxfp4Format) check_stack(name, owner);
    if (may_be_linear(name, shape)) {
      others_.push_back(name.substr(0, name.size() - kSuffix.size()));
    }
    if (!owner.empty()) others_.push_back(std::move(owner));
  }

  void add_expert(const ExpertPlace& place, const std::string& name,
                  EncodedLinear& encoded) {
    const auto [at, first] = linears_.try_emplace(
        place.stack, DescribedLinear{encoded.scheme, encoded.extension});
    if (!first && at->second.scheme != encoded.scheme) {
      fail(ErrorCode::kUnsupported,
           "Linear '{}': is stored unlike other experts of '{}', which {} has "
           "in "
           "one stack; write compressed-tensors",
           name, place.stack, row_.facts.name);
    }
    stacker_.add(place, name, encoded.tensors);
  }

  // Experts that came one by one are in no stack, those of a plain stack in no
  // MXFP4.
  void check_stack(const std::string& name, const std::string& owner) {
    has_mxfp4_stack_ |= name.ends_with("_blocks");
    const bool plain = !owner.empty() && !name.ends_with("_scales");
    if (!plain) return;
    fail(ErrorCode::kUnsupported,
         "'{}': a stack in plain numbers cannot stand beside MXFP4 in format "
         "'{}'; write safetensors",
         name, kMxfp4Format);
  }

  void check_alike(const std::string& name, const EncodedLinear& encoded) {
    if (encoded.scheme.format == "dense") return;
    const std::pair found(encoded.scheme.format,
                          encoded.extension.outlier_threshold);
    if (!only_scheme_) only_scheme_ = found;
    if (*only_scheme_ == found) return;
    fail(ErrorCode::kUnsupported,
         "Linear '{}': {} beside {}; {} stores all Linears of a model alike, "
         "write compressed-tensors",
         name, found.first, only_scheme_->first, row_.facts.name);
  }

  const FormatRow& row_;
  fs::path source_;
  DType compute_ = DType::kF32;
  ModuleNames modules_;
  std::unique_ptr<ArtifactSink> sink_;
  const StackNames* stacks_ = nullptr;
  ExpertStacker stacker_{[this](const NamedTensor& t) { sink_->put(t); }};
  Described linears_{};
  std::vector<std::string> others_{};
  std::map<std::string, std::string> files_{};
  std::optional<std::pair<std::string, float>> only_scheme_{};
  bool has_mxfp4_stack_ = false;
};

}  // namespace

std::span<const OutputFormat> output_formats() { return kFormatFacts; }

const OutputFormat& find_output_format(std::string_view name) {
  std::string known;
  for (const OutputFormat& format : kFormatFacts) {
    if (format.name == name) return format;
    known += (known.empty() ? "" : ", ") + std::string(format.name);
  }
  fail(ErrorCode::kInvalidArgument, "unknown output format '{}'; known: {}",
       name, known);
}

OutputKind kind_of(const OutputFormat& format) { return format.kind; }

EncodedLinear encode_linear(std::string_view format, const std::string& name,
                            const LinearWeights& linear) {
  return row_of(format).encode(name, linear, DType::kF32);
}

void help_writing(const Ranks& ranks, ThreadPool& pool) {
  (void)write_shards({}, ranks, pool);
}

std::unique_ptr<ArtifactWriter> make_artifact_writer(
    const ArtifactOptions& options) {
  const OutputFormat& format = find_output_format(options.format);
  ArtifactOptions resolved = options;
  if (resolved.output.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "the output has no path");
  }
  // A link is followed, so that it is its target that is replaced.
  resolved.output = resolve_path(resolved.output);
  check_replaceable(resolved.output, kind_of(format));
  return std::make_unique<Writer>(resolved);
}

}  // namespace llmpress
