#include "compress/pipeline/checkpoint_overlay.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace llmpress {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kBias = ".bias";

TensorBytes encode(std::span<const float> values, DType dtype) {
  auto bytes =
      std::make_shared<std::vector<std::byte>>(bytes_of(dtype, values.size()));
  encode_floats(dtype, values, *bytes);
  return {*bytes, bytes};
}

// `tensor` without `suffix`, or nothing.
std::string without(std::string_view suffix, const std::string& tensor) {
  return tensor.ends_with(suffix)
             ? tensor.substr(0, tensor.size() - suffix.size())
             : std::string();
}

class OverlayReader : public TensorReader {
 public:
  OverlayReader(const Checkpoint& base, const CheckpointEdits& edits)
      : base_(base), edits_(edits) {
    const auto tensors = base.tensors().tensors();
    infos_.assign(tensors.begin(), tensors.end());
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
      return encode(values.data(), info.dtype);
    }
    const std::string linear = without(kWeight, info.name);
    if (const auto added = edits_.added_linears.find(linear);
        added != edits_.added_linears.end()) {
      return encode(added->second.make().data(), info.dtype);
    }
    if (const auto edit = edits_.linears.find(linear);
        edit != edits_.linears.end()) {
      LinearWeights weights = base_.read_linear(linear);
      MatrixF W = dequantize(weights.weight);
      edit->second(W, weights);
      return encode(W.data(), info.dtype);
    }
    if (const std::string biased = without(kBias, info.name);
        edits_.biases.contains(biased)) {
      LinearWeights weights = base_.read_linear(biased);
      MatrixF W = dequantize(weights.weight);
      edits_.linears.at(biased)(W, weights);
      return encode(weights.bias, info.dtype);
    }
    return base_.tensors().read(base_.tensors().require(info.name));
  }

 private:
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
      : base_(base), edits_(std::move(edits)), reader_(base, edits_) {}

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
