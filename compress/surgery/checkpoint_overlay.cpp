#include "compress/surgery/checkpoint_overlay.h"

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/model/block_weights.h"
#include "compress/model/linear_storage.h"
#include "compress/model/mxfp4_stack.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kBias = ".bias";

TensorBytes encode(const TensorInfo& info, std::span<const float> values) {
  auto bytes = std::make_shared<std::vector<std::byte>>(
      rounded_tensor(info.name, info.dtype, info.shape, values).bytes);
  return {*bytes, bytes};
}

// A floating tensor of any number of dimensions: more than two are one row.
MatrixF numbers_of(const TensorReader& reader, const std::string& name) {
  const TensorInfo& info = reader.require(name);
  if (info.shape.size() <= 2) return read_matrix(reader, name);
  MatrixF values(1, info.bytes / bytes_of(info.dtype, 1));
  decode_floats(info.dtype, reader.read(info).bytes, values.data());
  return values;
}

// `tensor` without `suffix`, or nothing.
std::string without(std::string_view suffix, const std::string& tensor) {
  return tensor.ends_with(suffix)
             ? tensor.substr(0, tensor.size() - suffix.size())
             : std::string();
}

// The edits as edits of what `base` holds: a packed embedding or head is
// changed by its weight, whatever tensors it is stored in.
CheckpointEdits resolved(const Checkpoint& base, CheckpointEdits edits) {
  for (auto edit = edits.tensors.begin(); edit != edits.tensors.end();) {
    const std::string module = without(kWeight, edit->first);
    if (base.has_linear(module) && base.plain_weight(module) == nullptr) {
      edits.linears[module] = [change = edit->second](
                                  MatrixF& W, LinearWeights&) { change(W); };
      edit = edits.tensors.erase(edit);
    } else {
      (void)base.tensors().require(edit->first);
      ++edit;
    }
  }
  return edits;
}

// Where the edited Linears of `edits.arch` lie that have no tensor of their own.
class SharedPlaces {
 public:
  struct Place {
    std::size_t layer = 0, linear = 0;
  };

  SharedPlaces(const Checkpoint& base, const CheckpointEdits& edits)
      : base_(base), arch_(edits.arch) {
    if (arch_ == nullptr) return;
    for (std::size_t layer = 0; layer < arch_->layers; ++layer) {
      const auto& linears = arch_->block(layer).linears;
      for (std::size_t l = 0; l < linears.size(); ++l) {
        if (!linears[l].storage) continue;
        const std::string name = arch_->linear_name(layer, l);
        if (edits.linears.contains(name)) add(name, {layer, l});
      }
    }
  }

  bool has(const std::string& linear) const { return places_.contains(linear); }
  const LinearSpec& spec(const std::string& linear) const {
    const Place& place = places_.at(linear);
    return arch_->block(place.layer).linears[place.linear];
  }
  LinearWeights read(const std::string& linear) const {
    const Place& place = places_.at(linear);
    return read_block_linear(base_, *arch_, place.layer, place.linear);
  }
  // The edited Linears in a tensor, or null.
  const std::vector<std::string>* in_tensor(const std::string& tensor) const {
    return find(weights_, tensor);
  }
  const std::vector<std::string>* in_bias(const std::string& tensor) const {
    return find(biases_, tensor);
  }

 private:
  using ByTensor = std::map<std::string, std::vector<std::string>>;

  void add(const std::string& name, Place place) {
    const std::string block = arch_->block_name(place.layer);
    const LinearSpec& spec = arch_->block(place.layer).linears[place.linear];
    if (find_mxfp4_stack(base_, block, spec)) {
      fail(ErrorCode::kUnsupported,
           "{}: '{}' lies in a stack of MXFP4, whose weights cannot change one "
           "by one; write plain numbers first (recipes/bf16.yaml)",
           base_.path(), name);
    }
    const TensorInfo* const tensor = shared_tensor(base_, block, spec);
    if (tensor == nullptr) return;
    places_[name] = place;
    weights_[tensor->name].push_back(name);
    if (!spec.bias) return;
    const std::string& shared = spec.storage->bias_tensor;
    biases_[shared.empty() ? name + std::string(kBias) : block + "." + shared]
        .push_back(name);
  }

  static const std::vector<std::string>* find(const ByTensor& all,
                                              const std::string& tensor) {
    const auto found = all.find(tensor);
    return found == all.end() ? nullptr : &found->second;
  }

  const Checkpoint& base_;
  const Architecture* arch_;
  std::map<std::string, Place> places_;
  ByTensor weights_, biases_;
};

class OverlayReader : public TensorReader {
 public:
  OverlayReader(const Checkpoint& base, const CheckpointEdits& edits)
      : base_(base), edits_(edits), shared_(base, edits) {
    const auto tensors = base.tensors().tensors();
    infos_.assign(tensors.begin(), tensors.end());
    for (const auto& edit : edits.linears) unpack(edit.first);
    for (TensorInfo& info : infos_) {
      if (!edits.dtype || !facts(info.dtype).floating ||
          !is_edited(info.name)) {
        continue;
      }
      const std::size_t elements = info.bytes / bytes_of(info.dtype, 1);
      info.dtype = *edits.dtype;
      info.bytes = bytes_of(info.dtype, elements);
    }
    for (const auto& [name, added] : edits.added_linears) {
      infos_.push_back({.name = name + std::string(kWeight),
                        .dtype = added.dtype,
                        .shape = {added.out, added.in},
                        .bytes = bytes_of(added.dtype, added.out * added.in)});
    }
    std::ranges::sort(infos_, {}, &TensorInfo::name);
  }

  std::span<const TensorInfo> tensors() const override { return infos_; }
  const std::map<std::string, std::string>& metadata() const override {
    return base_.tensors().metadata();
  }

  TensorBytes read(const TensorInfo& info) const override {
    if (const auto* linears = shared_.in_tensor(info.name)) {
      return edited_together(info, *linears, kept_weights_,
                             [](const LinearSpec& spec, const MatrixF& W,
                                const LinearWeights&, std::span<float> values) {
                               place_weight(spec, W.view(), values);
                             });
    }
    if (const auto* linears = shared_.in_bias(info.name)) {
      return edited_together(
          info, *linears, kept_biases_,
          [](const LinearSpec& spec, const MatrixF&,
             const LinearWeights& weights, std::span<float> values) {
            place_bias(spec, weights.bias, values);
          });
    }
    if (const auto edit = edits_.tensors.find(info.name);
        edit != edits_.tensors.end()) {
      MatrixF values = numbers_of(base_.tensors(), info.name);
      edit->second(values);
      return encode(info, values.data());
    }
    const std::string linear = without(kWeight, info.name);
    if (const auto added = edits_.added_linears.find(linear);
        added != edits_.added_linears.end()) {
      return encode(info, added->second.make().data());
    }
    if (const auto edit = edits_.linears.find(linear);
        edit != edits_.linears.end()) {
      return encode(info, edited(linear).first.data());
    }
    if (const std::string biased = without(kBias, info.name);
        edits_.biases.contains(biased)) {
      return encode(info, edited(biased).second.bias);
    }
    return base_.tensors().read(base_.tensors().require(info.name));
  }

  // A Linear that `edits` changes: W [out, in], and the rest of it.
  std::pair<MatrixF, LinearWeights> edited(const std::string& linear) const {
    LinearWeights weights =
        shared_.has(linear) ? shared_.read(linear) : base_.read_linear(linear);
    MatrixF W = dequantize(weights.weight);
    edits_.linears.at(linear)(W, weights);
    return {std::move(W), std::move(weights)};
  }

 private:
  // The last tensor of its kind that was asked for: Linears that lie in one are
  // read one after another.
  struct Kept {
    std::string name{};
    TensorBytes bytes{};
  };

  // A tensor that several Linears lie in, with the edits of all.
  template <class Put>
  TensorBytes edited_together(const TensorInfo& info,
                              const std::vector<std::string>& linears,
                              Kept& kept, Put put) const {
    const std::lock_guard lock(kept_mutex_);
    if (kept.name == info.name) return kept.bytes;
    std::vector<float> values =
        floats_of(base_.tensors(), base_.tensors().require(info.name));
    for (const std::string& linear : linears) {
      const auto [W, weights] = edited(linear);
      put(shared_.spec(linear), W, weights, std::span(values));
    }
    kept = {.name = info.name, .bytes = encode(info, values)};
    return kept.bytes;
  }

  // A packed Linear that changes stands as its weight in float32, without
  // codes and scales; a bias stays.
  void unpack(const std::string& linear) {
    if (shared_.has(linear) || base_.plain_weight(linear) != nullptr) return;
    const PackedWeight weight = base_.read_linear(linear).weight;
    const std::string stem = linear + ".";
    std::erase_if(infos_, [&](const TensorInfo& info) {
      return info.name.starts_with(stem) &&
             info.name.substr(linear.size()) != kBias;
    });
    const std::size_t out = rows_of(weight), in = cols_of(weight);
    infos_.push_back({.name = linear + std::string(kWeight),
                      .dtype = DType::kF32,
                      .shape = {out, in},
                      .bytes = bytes_of(DType::kF32, out * in)});
  }

  bool is_edited(const std::string& tensor) const {
    return shared_.in_tensor(tensor) != nullptr ||
           shared_.in_bias(tensor) != nullptr ||
           edits_.tensors.contains(tensor) ||
           edits_.linears.contains(without(kWeight, tensor)) ||
           edits_.biases.contains(without(kBias, tensor));
  }

  const Checkpoint& base_;
  const CheckpointEdits& edits_;
  SharedPlaces shared_;
  std::vector<TensorInfo> infos_;
  mutable std::mutex kept_mutex_;
  mutable Kept kept_weights_, kept_biases_;
};

class OverlayCheckpoint : public Checkpoint {
 public:
  OverlayCheckpoint(const Checkpoint& base, CheckpointEdits edits)
      : base_(base),
        edits_(resolved(base, std::move(edits))),
        reader_(base, edits_) {}

  const std::filesystem::path& path() const override { return base_.path(); }
  const TensorReader& tensors() const override { return reader_; }
  const std::string& config_json() const override {
    return edits_.config_json.empty() ? base_.config_json()
                                      : edits_.config_json;
  }
  std::string_view format() const override { return base_.format(); }

  bool has_linear(std::string_view name) const override {
    return edits_.added_linears.contains(std::string(name)) ||
           base_.has_linear(name);
  }

  std::string describe_absence(std::string_view name) const override {
    return base_.describe_absence(name);
  }
  std::optional<KvScheme> kv_scheme(std::string_view name) const override {
    return base_.kv_scheme(name);
  }
  std::vector<std::string> notes() const override { return base_.notes(); }
  const TensorInfo* plain_weight(std::string_view name) const override {
    const std::string key(name);
    const bool changed =
        edits_.added_linears.contains(key) || edits_.linears.contains(key);
    return changed || base_.plain_weight(name) != nullptr
               ? reader_.find(key + std::string(kWeight))
               : nullptr;
  }

  LinearWeights read_linear(std::string_view name) const override {
    const std::string key(name);
    if (const auto added = edits_.added_linears.find(key);
        added != edits_.added_linears.end()) {
      return {.weight = make_dense(added->second.make().view(), DType::kF32)};
    }
    if (!edits_.linears.contains(key)) return base_.read_linear(name);
    auto [W, linear] = reader_.edited(key);
    linear.weight = make_dense(W.view(), DType::kF32);
    return linear;
  }

 private:
  const Checkpoint& base_;
  CheckpointEdits edits_;
  OverlayReader reader_;
};

}  // namespace

std::unique_ptr<Checkpoint> overlay(const Checkpoint& base,
                                    CheckpointEdits edits) {
  return std::make_unique<OverlayCheckpoint>(base, std::move(edits));
}

std::string with_flag(const std::string& config_json, const std::string& key,
                      bool value) {
  auto json = nlohmann::ordered_json::parse(config_json);
  json[key] = value;
  for (auto& [name, member] : json.items()) {
    if (member.is_object() && member.contains(key)) member[key] = value;
  }
  return json.dump(2);
}

}  // namespace llmpress
