#include "formats/checkpoints/expert_stacks.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

constexpr std::array kModels{
    StackNames{"mixtral", "switch_mlp", true},
    StackNames{"phimoe", "switch_mlp", true},
    StackNames{"qwen2_moe"},
    StackNames{"qwen3_moe"},
    StackNames{"olmoe"},
    StackNames{"glm4_moe"},
    StackNames{"ernie4_5_moe"},
    StackNames{"granitemoe"},
    StackNames{"dots1", "experts"},
    StackNames{"gpt_oss", "experts"},
    StackNames{"llama4", "experts"},
};

struct LeafNames {
  std::string_view stacked, numbered;
};
constexpr std::array kLeaves{LeafNames{"gate_proj", "w1"},
                             LeafNames{"up_proj", "w3"},
                             LeafNames{"down_proj", "w2"}};

constexpr std::string_view kExperts = ".experts.";
constexpr std::size_t kMostExperts = 65536;

std::string_view leaf_in(const StackNames& names, const LeafNames& leaf) {
  return names.numbered ? leaf.numbered : leaf.stacked;
}

std::string model_type_of(const std::string& config_json) {
  const auto root = nlohmann::json::parse(config_json, nullptr, false);
  if (!root.is_object()) return {};
  const auto at = root.find("model_type");
  return at != root.end() && at->is_string() ? at->get<std::string>()
                                             : std::string();
}

// "A.switch_mlp.gate_proj.scales": A, the leaf and ".scales".
struct StackTensor {
  std::string prefix{};
  const LeafNames* leaf = nullptr;
  std::string part{};
};

std::optional<StackTensor> parse_stack(const StackNames& names,
                                       const TensorInfo& info) {
  const std::string middle = "." + std::string(names.module) + ".";
  const std::size_t at = info.name.find(middle);
  if (at == std::string::npos) return std::nullopt;
  const std::string_view rest =
      std::string_view(info.name).substr(at + middle.size());
  for (const LeafNames& leaf : kLeaves) {
    if (!rest.starts_with(leaf.stacked)) continue;
    const std::string_view part = rest.substr(leaf.stacked.size());
    if (!part.starts_with('.') || part.find('.', 1) != std::string_view::npos) {
      continue;
    }
    return StackTensor{info.name.substr(0, at), &leaf, std::string(part)};
  }
  return std::nullopt;
}

class Unstacked : public TensorReader {
 public:
  Unstacked(std::unique_ptr<TensorReader> inner, const StackNames& names)
      : inner_(std::move(inner)) {
    for (const TensorInfo& info : inner_->tensors()) {
      const auto stack = parse_stack(names, info);
      if (stack) {
        add(info, *stack, names);
      } else {
        tensors_.push_back(info);
      }
    }
    std::ranges::sort(tensors_, {}, &TensorInfo::name);
    const auto twice =
        std::ranges::adjacent_find(tensors_, {}, &TensorInfo::name);
    if (twice != tensors_.end()) {
      fail(ErrorCode::kCorruptFile, "{}: lies in a stack too",
           subject_of(*twice));
    }
  }

  std::span<const TensorInfo> tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override {
    return inner_->metadata();
  }
  TensorBytes read(const TensorInfo& info) const override {
    const auto at = places_.find(info.name);
    if (at == places_.end()) return inner_->read(info);
    TensorBytes stack = inner_->read(inner_->require(at->second.stack));
    stack.bytes =
        stack.bytes.subspan(at->second.expert * info.bytes, info.bytes);
    return stack;
  }

 private:
  void add(const TensorInfo& info, const StackTensor& stack,
           const StackNames& names) {
    const std::size_t experts = info.shape.empty() ? 0 : info.shape[0];
    if (experts == 0 || experts > kMostExperts || info.bytes % experts != 0) {
      fail(ErrorCode::kCorruptFile, "{}: shape {} is no stack of experts",
           subject_of(info), shape_text(info.shape));
    }
    TensorInfo one = info;
    one.shape.erase(one.shape.begin());
    one.bytes = info.bytes / experts;
    for (std::size_t e = 0; e < experts; ++e) {
      one.name = formatted("{}{}{}.{}{}", stack.prefix, kExperts, e,
                           leaf_in(names, *stack.leaf), stack.part);
      places_[one.name] = {info.name, e};
      tensors_.push_back(one);
    }
  }

  std::unique_ptr<TensorReader> inner_;
  std::vector<TensorInfo> tensors_{};
  std::map<std::string, ExpertPlace> places_{};
};

}  // namespace

const StackNames* find_stack_names(const std::string& config_json) {
  const std::string type = model_type_of(config_json);
  const auto at = std::ranges::find(kModels, type, &StackNames::model_type);
  return at == kModels.end() ? nullptr : at;
}

void unstack_experts(std::unique_ptr<TensorReader>& reader,
                     const std::string& config_json, const std::string& where) {
  const StackNames* const names = find_stack_names(config_json);
  const auto tensors = reader->tensors();
  if (names != nullptr) {
    if (std::ranges::any_of(tensors, [&](const TensorInfo& info) {
          return parse_stack(*names, info).has_value();
        })) {
      reader = std::make_unique<Unstacked>(std::move(reader), *names);
    }
    return;
  }
  const auto at = std::ranges::find_if(tensors, [](const TensorInfo& info) {
    return info.name.find(".switch_mlp.") != std::string::npos;
  });
  if (at == tensors.end()) return;
  fail(ErrorCode::kUnsupported,
       "{}: '{}': experts of model_type '{}' as mlx-lm stacks them are not "
       "read; "
       "give the model that it was made from",
       where, at->name, model_type_of(config_json));
}

std::optional<ExpertPlace> place_of_expert(const StackNames& names,
                                           std::string_view linear) {
  const std::size_t at = linear.find(kExperts);
  if (at == std::string_view::npos) return std::nullopt;
  const char* const digits = linear.data() + at + kExperts.size();
  const char* const end = linear.data() + linear.size();
  std::size_t expert = 0;
  const auto [rest, error] = std::from_chars(digits, end, expert);
  if (error != std::errc() || rest == end || *rest != '.') return std::nullopt;
  const std::string_view leaf(rest + 1,
                              static_cast<std::size_t>(end - rest - 1));
  for (const LeafNames& row : kLeaves) {
    if (leaf != leaf_in(names, row)) continue;
    return ExpertPlace{
        formatted("{}.{}.{}", linear.substr(0, at), names.module, row.stacked),
        expert};
  }
  return std::nullopt;
}

// --- writing -----------------------------------------------------------------

namespace {

[[noreturn]] void refuse_stack(const std::string& name,
                               const std::string& what) {
  fail(ErrorCode::kUnsupported,
       "'{}': {}; MLX has the experts of a block in one stack, write "
       "compressed-tensors",
       name, what);
}

// Scales that some experts have in a narrower type than others.
void widen(NamedTensor& tensor) {
  if (tensor.dtype == DType::kF32) return;
  std::vector<float> values(tensor.bytes.size() / bytes_of(tensor.dtype, 1));
  decode_floats(tensor.dtype, tensor.bytes, values);
  tensor.dtype = DType::kF32;
  tensor.bytes.resize(values.size() * sizeof(float));
  encode_floats(DType::kF32, values, tensor.bytes);
}

void make_alike(std::vector<NamedTensor>& experts) {
  const bool alike = std::ranges::all_of(experts, [&](const NamedTensor& t) {
    return t.dtype == experts[0].dtype;
  });
  const bool floats = std::ranges::all_of(
      experts, [](const NamedTensor& t) { return is_plain_float(t.dtype); });
  if (alike || !floats) return;
  for (NamedTensor& t : experts) widen(t);
}

}  // namespace

void ExpertStacker::add(const ExpertPlace& place, const std::string& linear,
                        const std::vector<NamedTensor>& tensors) {
  const std::string block = place.stack.substr(0, place.stack.rfind('.'));
  if (block != block_) {
    finish();
    block_ = block;
    if (std::ranges::find(done_, block) != done_.end()) {
      refuse_stack(linear, "its expert comes after those of another block");
    }
  }
  for (const NamedTensor& tensor : tensors) {
    std::vector<NamedTensor>& experts =
        stacks_[place.stack + tensor.name.substr(linear.size())];
    if (experts.size() <= place.expert) {
      if (place.expert >= kMostExperts)
        refuse_stack(linear, "too many experts");
      experts.resize(place.expert + 1);
    }
    experts[place.expert] = tensor;
  }
}

void ExpertStacker::put_stack(const std::string& name,
                              std::vector<NamedTensor>& experts) {
  make_alike(experts);
  NamedTensor stack = experts[0];
  stack.name = name;
  stack.shape.insert(stack.shape.begin(), experts.size());
  stack.bytes.clear();
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const NamedTensor& one = experts[e];
    if (one.name.empty() || one.dtype != experts[0].dtype ||
        one.shape != experts[0].shape) {
      refuse_stack(name,
                   formatted("expert {} {}", e,
                             one.name.empty() ? "is missing"
                                              : "is stored unlike the first"));
    }
    stack.bytes.insert(stack.bytes.end(), one.bytes.begin(), one.bytes.end());
  }
  put_(stack);
}

void ExpertStacker::finish() {
  for (auto& [name, experts] : stacks_) put_stack(name, experts);
  stacks_.clear();
  if (!block_.empty()) done_.push_back(std::exchange(block_, {}));
}

}  // namespace llmpress
