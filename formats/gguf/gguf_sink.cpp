#include "formats/gguf/gguf_sink.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "compress/core/formatted.h"
#include "compress/core/ggml/ggml_block.h"
#include "formats/checkpoints/config_reader.h"
#include "formats/containers/safetensors.h"
#include "formats/files/atomic_file.h"
#include "formats/files/mapped_file.h"
#include "formats/files/replaceable.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_change.h"
#include "formats/gguf/gguf_decoder.h"
#include "formats/gguf/gguf_model.h"
#include "formats/gguf/gguf_names.h"
#include "formats/gguf/gguf_parts.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// A tensor of the folder in the spool.
struct Spooled {
  TensorInfo info{};
  std::optional<GgmlType> blocks{};
  std::size_t begin = 0;
};

// A tensor of the file and what it is made of: one, or the experts of a stack.
struct Planned {
  GgufTensor tensor{};
  GgufChange change = GgufChange::kNone;
  std::vector<const Spooled*> parts{};
  std::vector<float> setting{};  // instead of parts
};

// What transformers leaves in checkpoints and nothing reads.
bool is_leftover(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") ||
         name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") ||
         name.ends_with(".attention.bias") ||
         name.ends_with(".attention.masked_bias") ||
         name.ends_with(".self_attn.slope_rate") ||
         name.ends_with(".self_attn.query_decay") ||
         name.ends_with(".self_attn.key_decay") ||
         name.ends_with(".self_attn.diagonal_decay");
}

// The number of "blk.12.attn_q.weight"; what stands before the blocks first.
std::size_t block_of(const std::string& name) {
  if (name.starts_with("blk.")) return 1 + std::stoul(name.substr(4));
  return name.starts_with("output") ? SIZE_MAX : 0;
}

// general.file_type of llama.cpp (llama.h, enum llama_ftype); mostly f16 where
// it has none.
std::uint32_t file_type_of(GgmlType most) {
  constexpr std::pair<GgmlType, std::uint32_t> kTypes[] = {
      {GgmlType::kF32, 0},    {GgmlType::kQ4_0, 2},    {GgmlType::kQ4_1, 3},
      {GgmlType::kQ8_0, 7},   {GgmlType::kQ5_0, 8},    {GgmlType::kQ5_1, 9},
      {GgmlType::kQ2_K, 10},  {GgmlType::kQ3_K, 12},   {GgmlType::kQ4_K, 15},
      {GgmlType::kQ5_K, 17},  {GgmlType::kQ6_K, 18},   {GgmlType::kIq4Nl, 25},
      {GgmlType::kIq4Xs, 30}, {GgmlType::kBF16, 32},   {GgmlType::kTq1_0, 36},
      {GgmlType::kTq2_0, 37}, {GgmlType::kMxfp4, 38},  {GgmlType::kIq2Xxs, 19},
      {GgmlType::kIq2Xs, 20}, {GgmlType::kIq3Xxs, 23}, {GgmlType::kIq1S, 24},
      {GgmlType::kIq3S, 26},  {GgmlType::kIq2S, 28},   {GgmlType::kIq1M, 31}};
  for (const auto& [type, number] : kTypes) {
    if (type == most) return number;
  }
  return 1;
}

class GgufSink : public ArtifactSink {
 public:
  explicit GgufSink(const ArtifactOptions& options)
      : output_(options.output),
        partial_(options.output),
        spool_(partial_.path() / "spool") {}

  void put(const NamedTensor& tensor) override { spool(tensor, {}); }
  void put_blocks(const NamedTensor& tensor, GgmlType type) override {
    spool(tensor, type);
  }

  void spool(const NamedTensor& tensor, std::optional<GgmlType> blocks) {
    if (!names_.insert(tensor.name).second) {
      fail(ErrorCode::kInvalidArgument, "tensor '{}' is written twice",
           tensor.name);
    }
    spool_.write(tensor.bytes);
    spooled_.push_back(
        {.info = info_of(tensor), .blocks = blocks, .begin = spooled_bytes_});
    spooled_bytes_ += tensor.bytes.size();
  }

  void finish(const std::map<std::string, std::string>& written) override {
    spool_.close_unflushed();
    auto files = written;
    if (auto decoder = gguf_decoder_config(files.at("config.json"))) {
      files["config.json"] = *std::move(decoder);
      take_decoder();
    }
    GgufDescription description = describe_as_gguf(files, output_.string());
    const ConfigReader config = ConfigReader::parse(
        files.at("config.json"), config_place(output_.string()));
    architecture_ = &gguf_architecture_for(config);
    sizes_ = gguf_row_sizes(description.metadata, architecture_->name);
    plan(config, description);
    add_provenance(files, description.metadata);
    write(description.metadata);
    verify();
    check_replaceable(output_, OutputKind::kGgufFile);  // hours may have passed
    replace_path(path(), output_);
  }

 private:
  // Of a vision-language model: by the names that the decoder has alone.
  void take_decoder() {
    std::vector<Spooled> kept;
    for (Spooled& spooled : spooled_) {
      auto name = gguf_decoder_tensor(spooled.info.name);
      if (!name) continue;
      spooled.info.name = *std::move(name);
      kept.push_back(std::move(spooled));
    }
    spooled_ = std::move(kept);
  }

  fs::path path() const { return partial_.path() / "model.gguf"; }

  void plan(const ConfigReader& config, const GgufDescription& description) {
    const bool tied =
        config.flag("tie_word_embeddings").value_or(architecture_->tied);
    for (const Spooled& spooled : spooled_) {
      if (is_leftover(spooled.info.name)) continue;
      const auto places = gguf_places(*architecture_, spooled.info.name);
      if (places.empty()) {
        fail(ErrorCode::kUnsupported,
             "tensor '{}' has no place in GGUF's architecture '{}'",
             spooled.info.name, architecture_->name);
      }
      if (tied && places[0].name == "output.weight") continue;
      for (const GgufPlace& place : places) add_part(place, spooled);
    }
    for (const auto& [name, values] : description.tensors) {
      planned_.push_back({.tensor = {.name = name, .shape = {values.size()}},
                          .setting = values});
    }
    for (Planned& planned : planned_) complete(planned);
    std::ranges::stable_sort(planned_, {}, [](const Planned& p) {
      return std::pair(block_of(p.tensor.name), p.tensor.name);
    });
  }

  void add_part(const GgufPlace& place, const Spooled& spooled) {
    const auto [at, added] = places_.try_emplace(place.name, planned_.size());
    if (added) {
      planned_.push_back(
          {.tensor = {.name = place.name}, .change = place.change});
    }
    auto& parts = planned_[at->second].parts;
    if (parts.size() <= place.expert) parts.resize(place.expert + 1);
    if (parts[place.expert] != nullptr) {
      fail(ErrorCode::kInvalidInput, "tensors '{}' and '{}' are both '{}'",
           parts[place.expert]->info.name, spooled.info.name, place.name);
    }
    parts[place.expert] = &spooled;
    stacked_[place.name] = place.stacked;
  }

  // Type and shape of what the parts make.
  void complete(Planned& planned) const {
    if (planned.parts.empty()) return;
    GgufTensor& tensor = planned.tensor;
    const Spooled* const first = planned.parts[0];
    for (std::size_t e = 0; e < planned.parts.size(); ++e) {
      const Spooled* const part = planned.parts[e];
      if (part == nullptr) {
        fail(ErrorCode::kInvalidInput, "'{}': expert {} is missing",
             tensor.name, e);
      }
      if (part->info.shape != first->info.shape ||
          part->info.dtype != first->info.dtype ||
          part->blocks != first->blocks) {
        fail(ErrorCode::kUnsupported,
             "'{}' and '{}' are stored in different ways, but one tensor in "
             "GGUF",
             part->info.name, first->info.name);
      }
    }
    const TensorInfo& info = first->info;
    tensor.shape = info.shape;
    if (is_part(planned.change)) {
      complete_part(*first, planned);
    } else if (first->blocks) {
      const GgmlTypeFacts& f = facts(*first->blocks);
      if (changes_values(planned.change)) {
        fail(ErrorCode::kUnsupported,
             "'{}' is in blocks of {}, but GGUF has its values times a factor; "
             "store it as plain numbers",
             info.name, f.name);
      }
      tensor.type = *first->blocks;
      tensor.shape.back() = tensor.shape.back() / f.bytes * f.elements;
    } else {
      tensor.shape = gguf_shape(planned.change, info.shape, sizes_);
      tensor.type = type_of(info, tensor.shape, planned.change);
    }
    if (stacked_.at(tensor.name)) {
      tensor.shape.insert(tensor.shape.begin(), planned.parts.size());
    }
  }

  // [rows, inputs] of the folder's tensor, a bias being one of one input.
  static std::pair<std::size_t, std::size_t> matrix_of(const Spooled& s) {
    const auto& shape = s.info.shape;
    const std::size_t rows = shape.empty() ? 0 : shape[0];
    if (!s.blocks) return {rows, shape.size() == 2 ? shape[1] : 1};
    const GgmlTypeFacts& f = facts(*s.blocks);
    return {rows, shape[1] / f.bytes * f.elements};
  }

  void complete_part(const Spooled& whole, Planned& planned) const {
    const auto [rows, columns] = matrix_of(whole);
    GgufTensor& tensor = planned.tensor;
    tensor.shape = gguf_part_shape(planned.change, rows, columns, sizes_);
    if (whole.info.shape.size() == 1) tensor.shape.pop_back();
    if (whole.blocks) {
      tensor.type =
          is_transposed_part(planned.change) ? GgmlType::kF32 : *whole.blocks;
    } else {
      tensor.type = type_of(whole.info, whole.info.shape, planned.change);
    }
  }

  std::vector<std::byte> part_octets(const Planned& p, const Spooled& whole,
                                     std::span<const std::byte> bytes) const {
    const auto [rows, columns] = matrix_of(whole);
    const auto order = gguf_part_rows(p.change, rows, sizes_);
    if (!is_transposed_part(p.change)) {
      if (!whole.blocks && ggml_type_of(whole.info.dtype) != p.tensor.type) {
        const auto values = as_f32(whole.info, bytes, p.change);
        return gathered_rows(values, order, columns * sizeof(float));
      }
      return gathered_rows(bytes, order, bytes.size() / rows);
    }
    const auto picked = gathered_rows(bytes, order, bytes.size() / rows);
    std::vector<float> values(order.size() * columns);
    if (whole.blocks) {
      decode_ggml(*whole.blocks, picked, values);
    } else {
      decode_floats(whole.info.dtype, picked, values);
    }
    values = transposed_each(values, sizes_.heads, order.size() / sizes_.heads,
                             columns);
    const DType dtype = *facts(p.tensor.type).plain;
    std::vector<std::byte> out(bytes_of(dtype, values.size()));
    encode_floats(dtype, values, out);
    return out;
  }

  static GgmlType type_of(const TensorInfo& info,
                          const std::vector<std::size_t>& shape,
                          GgufChange change) {
    const bool floating = facts(info.dtype).floating;
    if (!floating || shape.empty() || shape.size() > 2) {
      fail(ErrorCode::kUnsupported,
           "tensor '{}' of type {} and {} dimensions has no place in GGUF",
           info.name, facts(info.dtype).name, info.shape.size());
    }
    const auto own = ggml_type_of(info.dtype);
    const bool small =
        shape.size() == 1 || change == GgufChange::kColumn ||
        change == GgufChange::kTaps || change == GgufChange::kTapsTimes ||
        change == GgufChange::kTiledTaps || change == GgufChange::kGroups ||
        change == GgufChange::kAsF32 || changes_values(change);
    if (small || !own || info.dtype == DType::kF64) return GgmlType::kF32;
    return *own;
  }

  void add_provenance(const std::map<std::string, std::string>& files,
                      GgufMetadata& m) const {
    std::map<GgmlType, std::size_t> bytes;
    bool quantized = false;
    for (const Planned& p : planned_) {
      if (p.tensor.shape.size() < 2) continue;
      bytes[p.tensor.type] +=
          gguf_bytes(p.tensor.type, p.tensor.shape, p.tensor.name);
      quantized |= !facts(p.tensor.type).plain.has_value();
    }
    const auto most = std::ranges::max_element(
        bytes, {}, [](const auto& row) { return row.second; });
    m.set("general.file_type",
          file_type_of(most == bytes.end() ? GgmlType::kF32 : most->first));
    if (quantized) m.set("general.quantization_version", std::uint32_t{2});
    m.set(std::string(kGgufVersionKey), std::string(LLMPRESS_VERSION));
    for (const auto& [file, key] :
         {std::pair{kProvenanceFile, "llmpress.provenance"},
          std::pair{std::string_view("recipe.yaml"), "llmpress.recipe"}}) {
      const auto found = files.find(std::string(file));
      if (found != files.end()) m.set(key, found->second);
    }
  }

  void write(const GgufMetadata& metadata) {
    std::vector<GgufTensor> tensors;
    for (const Planned& p : planned_) tensors.push_back(p.tensor);
    const std::size_t alignment = gguf_alignment(metadata);
    const TensorBytes spool = mapped_spool();
    OutputFile file(path());
    file.write(gguf_header(metadata, tensors));
    for (std::size_t i = 0; i < planned_.size(); ++i) {
      std::size_t written = 0;
      const auto part = [&](std::span<const std::byte> bytes) {
        file.write(bytes);
        written += bytes.size();
      };
      write_parts(planned_[i], spool, part);
      if (written != tensors[i].bytes) {
        throw std::logic_error("gguf: a tensor of another size than planned");
      }
      file.write(gguf_padding(written, alignment));
    }
    file.close();
  }

  TensorBytes mapped_spool() const {
    return spooled_bytes_ == 0 ? TensorBytes{}
                               : map_file(partial_.path() / "spool");
  }

  template <class Write>
  void write_parts(const Planned& p, const TensorBytes& spool,
                   const Write& write) const {
    if (p.parts.empty()) {
      write(std::as_bytes(std::span(p.setting)));
      return;
    }
    for (const Spooled* const part : p.parts) {
      const TensorBytes stored =
          mapped_part(spool, part->begin, part->info.bytes);
      const std::vector<std::byte> changed = change(p, *part, stored.bytes);
      write(changed.empty() ? stored.bytes
                            : std::span<const std::byte>(changed));
    }
  }

  // Empty: as it is.
  std::vector<std::byte> change(const Planned& p, const Spooled& part,
                                std::span<const std::byte> bytes) const {
    if (is_part(p.change)) return part_octets(p, part, bytes);
    const TensorInfo& info = part.info;
    std::vector<std::byte> out;
    if (!part.blocks && (ggml_type_of(info.dtype) != p.tensor.type ||
                         changes_values(p.change))) {
      out = as_f32(info, bytes, p.change);
      bytes = out;
    }
    if (moves_rows(p.change)) {
      return reordered_rows(
          bytes, gguf_row_order(p.change, info.shape[0], sizes_), true);
    }
    if (moves_columns(p.change) && info.shape.size() == 2) {
      const auto matrix = matrix_of(part);
      const std::size_t rows = std::get<0>(matrix),
                        columns = std::get<1>(matrix);
      const std::size_t elements =
          part.blocks ? facts(*part.blocks).elements : 1;
      return named(info.name, [&] {
        return reordered_columns(bytes, rows, columns, elements, sizes_, true);
      });
    }
    if (p.change == GgufChange::kTransposed && info.shape.size() == 2 &&
        !part.blocks) {
      const std::size_t rows = info.shape[0], columns = info.shape[1];
      return transposed_octets(bytes, rows, columns,
                               bytes.size() / rows / columns);
    }
    return out;
  }

  // Errors say of which tensor they are.
  template <class Make>
  static std::vector<std::byte> named(const std::string& name,
                                      const Make& make) {
    try {
      return make();
    } catch (const Error& error) {
      throw Error(error.code(), formatted("'{}': {}", name, error.what()));
    }
  }

  std::vector<std::byte> as_f32(const TensorInfo& info,
                                std::span<const std::byte> bytes,
                                GgufChange change) const {
    std::vector<float> values(bytes.size() / bytes_of(info.dtype, 1));
    decode_floats(info.dtype, bytes, values);
    if (changes_values(change)) change_values(change, true, values, sizes_);
    std::vector<std::byte> out(values.size() * sizeof(float));
    encode_floats(DType::kF32, values, out);
    return out;
  }

  // Every tensor read back beside what was spooled.
  void verify() const {
    const GgufFile file = GgufFile::open(path());
    if (file.tensors().size() != planned_.size()) {
      fail(ErrorCode::kIo, "reading back: {} tensors, wanted {}",
           file.tensors().size(), planned_.size());
    }
    const TensorBytes spool = mapped_spool();
    for (const Planned& p : planned_) {
      const GgufTensor* const tensor = file.find(p.tensor.name);
      bool same = tensor != nullptr;
      if (same) {
        const TensorBytes stored = file.read(*tensor);
        std::span<const std::byte> rest = stored.bytes;
        write_parts(p, spool, [&](std::span<const std::byte> bytes) {
          same = same && rest.size() >= bytes.size() &&
                 (bytes.empty() ||
                  std::memcmp(rest.data(), bytes.data(), bytes.size()) == 0);
          if (same) rest = rest.subspan(bytes.size());
        });
        same = same && rest.empty();
      }
      if (!same) {
        fail(ErrorCode::kIo, "reading back: tensor '{}' differs",
             p.tensor.name);
      }
    }
    (void)GgufModel(GgufFile::open(path()));  // that we read it ourselves
  }

  fs::path output_;
  PartialDirectory partial_;
  OutputFile spool_;
  std::vector<Spooled> spooled_{};
  std::size_t spooled_bytes_ = 0;
  std::set<std::string> names_{};
  const GgufArchitecture* architecture_ = nullptr;
  GgufRowSizes sizes_{};
  std::vector<Planned> planned_{};
  std::map<std::string, std::size_t> places_{};
  std::map<std::string, bool> stacked_{};
};

}  // namespace

std::unique_ptr<ArtifactSink> make_gguf_sink(const ArtifactOptions& options) {
  return std::make_unique<GgufSink>(options);
}

}  // namespace llmpress
