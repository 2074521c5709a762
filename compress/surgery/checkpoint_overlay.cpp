#include "compress/surgery/checkpoint_overlay.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

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

class OverlayReader : public TensorReader {
 public:
  OverlayReader(const Checkpoint& base, const CheckpointEdits& edits)
      : base_(base), edits_(edits) {
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
    if (const auto edit = edits_.tensors.find(info.name);
        edit != edits_.tensors.end()) {
      MatrixF values = read_matrix(base_.tensors(), info.name);
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
      LinearWeights weights = base_.read_linear(linear);
      MatrixF W = dequantize(weights.weight);
      edit->second(W, weights);
      return encode(info, W.data());
    }
    if (const std::string biased = without(kBias, info.name);
        edits_.biases.contains(biased)) {
      LinearWeights weights = base_.read_linear(biased);
      MatrixF W = dequantize(weights.weight);
      edits_.linears.at(biased)(W, weights);
      return encode(info, weights.bias);
    }
    return base_.tensors().read(base_.tensors().require(info.name));
  }

 private:
  // A packed Linear that changes stands as its weight in float32, without
  // codes and scales; a bias stays.
  void unpack(const std::string& linear) {
    if (base_.plain_weight(linear) != nullptr) return;
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
    return edits_.tensors.contains(tensor) ||
           edits_.linears.contains(without(kWeight, tensor)) ||
           edits_.biases.contains(without(kBias, tensor));
  }

  const Checkpoint& base_;
  const CheckpointEdits& edits_;
  std::vector<TensorInfo> infos_;
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
    LinearWeights linear = base_.read_linear(name);
    const auto edit = edits_.linears.find(key);
    if (edit == edits_.linears.end()) return linear;
    MatrixF W = dequantize(linear.weight);
    edit->second(W, linear);
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
  return json.dump(2);
}

}  // namespace llmpress
