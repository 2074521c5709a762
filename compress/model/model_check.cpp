#include "compress/model/model_check.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/packed_weight.h"
#include "compress/model/block.h"
#include "compress/model/mxfp4_stack.h"
#include "compress/model/tensor_places.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

constexpr std::size_t kProblemsListed = 8;

std::string shape_text(std::span<const std::size_t> shape) {
  std::string text = "[";
  for (const std::size_t d : shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(d);
  }
  return text + "]";
}

class Inspection {
 public:
  Inspection(const Checkpoint& checkpoint, const Architecture& arch,
             PackedLinears packed)
      : checkpoint_(checkpoint), arch_(arch), packed_(packed) {}

  void check_vector(const std::string& name, std::size_t size) {
    check_tensor(name, {size});
  }

  void check_tensor(const std::string& name,
                    const std::vector<std::size_t>& shape) {
    const TensorInfo* const tensor = checkpoint_.tensors().find(name);
    if (tensor == nullptr) {
      problems_.push_back("'" + name + "' is missing");
    } else if (tensor->shape != shape) {
      problems_.push_back("'" + name + "' is " + shape_text(tensor->shape) +
                          ", wanted " + shape_text(shape));
    }
  }

  void check_linear(const std::string& name, std::size_t out, std::size_t in) {
    if (!checkpoint_.has_linear(name)) {
      problems_.push_back(checkpoint_.describe_absence(name));
      return;
    }
    std::array<std::size_t, 2> found{};
    if (const TensorInfo* dense = dense_matrix(checkpoint_, name)) {
      found = {dense->shape[0], dense->shape[1]};
    } else if (packed_ == PackedLinears::kReadLater) {
      return;
    } else {
      try {
        const PackedWeight weight = checkpoint_.read_linear(name).weight;
        found = {rows_of(weight), cols_of(weight)};
      } catch (const Error& error) {
        problems_.push_back(error.what());
        return;
      }
    }
    if (found != std::array{out, in}) {
      problems_.push_back("'" + name + "' is " + shape_text(found) +
                          ", wanted " + shape_text(std::array{out, in}));
    }
  }

  void check_block(std::size_t layer) {
    const BlockSpec& block = arch_.block(layer);
    const std::string prefix = arch_.block_name(layer) + ".";
    for (std::size_t i = 0; i < block.linears.size(); ++i) {
      const LinearSpec& spec = block.linears[i];
      const std::string name = arch_.linear_name(layer, i);
      if (shared_tensor(checkpoint_, arch_.block_name(layer), spec) !=
              nullptr ||
          find_mxfp4_stack(checkpoint_, arch_.block_name(layer), spec)) {
        continue;  // its shape is checked where it is cut out
      }
      check_linear(name, spec.out, spec.in);
      if (spec.bias) check_vector(name + ".bias", spec.out);
    }
    for (const NormSpec& norm : block.norms) {
      check_vector(prefix + norm.name + ".weight", norm.width);
      if (norm.bias) check_vector(prefix + norm.name + ".bias", norm.width);
    }
    for (const ParameterSpec& parameter : block.parameters) {
      if (!parameter.constant.empty()) continue;
      check_tensor(prefix + parameter.name, parameter.shape);
    }
  }

  void check_head() {
    if (!arch_.head_bias &&
        checkpoint_.tensors().find(arch_.head + ".bias") != nullptr) {
      problems_.push_back("'" + arch_.head +
                          ".bias' is stored, but the head of " +
                          arch_.model_type + " has none");
    }
    if (arch_.tied_head) return;
    if (!checkpoint_.has_linear(arch_.head)) {
      problems_.push_back(checkpoint_.describe_absence(arch_.head) +
                          "; config.json says that the head is not tied to the "
                          "embedding (tie_word_embeddings)");
      return;
    }
    check_linear(arch_.head, arch_.vocabulary, arch_.input_width());
  }

  std::vector<std::string> take_problems() { return std::move(problems_); }

 private:
  const Checkpoint& checkpoint_;
  const Architecture& arch_;
  PackedLinears packed_;
  std::vector<std::string> problems_{};
};

double bits(std::size_t bytes, std::size_t weights) {
  return weights == 0
             ? 0.0
             : 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
}

}  // namespace

double ModelSize::bits_per_weight() const {
  return bits(weight_bytes, weights);
}
double ModelSize::linear_bits_per_weight() const {
  return bits(linear_bytes, linear_weights);
}

const TensorInfo* dense_matrix(const Checkpoint& checkpoint,
                               const std::string& name) {
  return checkpoint.plain_weight(name);
}

namespace {

// The Linears whose weights are not plain numbers in a tensor, with the bytes
// and the weights of all of the blocks'.
class LinearSizes {
 public:
  LinearSizes(const Checkpoint& checkpoint, const Architecture& arch) {
    for (std::size_t layer = 0; layer < arch.layers; ++layer) {
      for (std::size_t i = 0; i < arch.block(layer).linears.size(); ++i) {
        add_block_linear(checkpoint, arch, layer, i);
      }
    }
    add_end(checkpoint, arch.embedding, arch.vocabulary * arch.input_width());
    if (!arch.tied_head) {
      add_end(checkpoint, arch.head, arch.vocabulary * arch.input_width());
    }
  }

  // Whether the tensor is one of those in which a packed Linear lies.
  bool is_packed_part(std::string_view tensor) const {
    if (tensor.ends_with(".bias")) return false;
    if (packed_.contains(tensor)) return true;
    for (std::size_t dot = tensor.rfind('.'); dot != std::string_view::npos;
         dot = tensor.rfind('.')) {
      tensor = tensor.substr(0, dot);
      if (packed_.contains(tensor)) return true;
    }
    return false;
  }

  std::size_t bytes = 0, weights = 0;  // of all Linears of blocks
  std::size_t packed_weights = 0;      // of packed ones, ends included

 private:
  void add_block_linear(const Checkpoint& checkpoint, const Architecture& arch,
                        std::size_t layer, std::size_t i) {
    const LinearSpec& spec = arch.block(layer).linears[i];
    const std::string name = arch.linear_name(layer, i);
    weights += spec.out * spec.in;
    const bool shared =
        shared_tensor(checkpoint, arch.block_name(layer), spec) != nullptr;
    const TensorInfo* const dense =
        shared ? nullptr : dense_matrix(checkpoint, name);
    bytes += dense ? dense->bytes
                   : stored_bytes(
                         read_block_linear(checkpoint, arch, layer, i).weight);
    if (dense != nullptr || shared) return;
    add_packed(name, spec.out * spec.in);
    if (find_mxfp4_stack(checkpoint, arch.block_name(layer), spec)) {
      const std::string stack =
          arch.block_name(layer) + "." + spec.storage->tensor;
      packed_.insert(stack + "_blocks");
      packed_.insert(stack + "_scales");
    }
  }

  void add_end(const Checkpoint& checkpoint, const std::string& name,
               std::size_t count) {
    if (checkpoint.has_linear(name) && !dense_matrix(checkpoint, name)) {
      add_packed(name, count);
    }
  }

  void add_packed(const std::string& name, std::size_t count) {
    packed_.insert(name);
    packed_weights += count;
  }

  std::set<std::string, std::less<>> packed_{};
};

}  // namespace

ModelSize measure_model(const Checkpoint& checkpoint,
                        const Architecture& arch) {
  const LinearSizes linears(checkpoint, arch);
  ModelSize size{.weights = linears.packed_weights,
                 .linear_bytes = linears.bytes,
                 .linear_weights = linears.weights};
  const std::string unused_head = arch.head + ".";
  for (const TensorInfo& tensor : checkpoint.tensors().tensors()) {
    const bool tied = arch.tied_head && tensor.name.starts_with(unused_head);
    if (tied || is_metadata_tensor(tensor.name)) continue;
    size.weight_bytes += tensor.bytes;
    if (linears.is_packed_part(tensor.name)) continue;
    std::size_t count = 1;
    for (const std::size_t d : tensor.shape) count *= d;
    size.weights += count;
  }
  return size;
}

std::vector<std::string> model_problems(const Checkpoint& checkpoint,
                                        const Architecture& arch,
                                        PackedLinears packed) {
  Inspection inspection(checkpoint, arch, packed);
  inspection.check_linear(arch.embedding, arch.vocabulary, arch.input_width());
  if (!arch.final_norm.empty()) {
    inspection.check_vector(arch.final_norm + ".weight", arch.hidden);
  }
  inspection.check_head();
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    inspection.check_block(layer);
  }
  return inspection.take_problems();
}

void check_model(const Checkpoint& checkpoint, const Architecture& arch,
                 PackedLinears packed) {
  const std::vector<std::string> problems =
      model_problems(checkpoint, arch, packed);
  if (problems.empty()) return;
  std::string text =
      formatted("{}: the files do not fit config.json ({}):", checkpoint.path(),
                arch.model_type);
  for (std::size_t i = 0; i < problems.size() && i < kProblemsListed; ++i) {
    text += (i == 0 ? " " : "; ") + problems[i];
  }
  if (problems.size() > kProblemsListed) {
    text += formatted("; and {} more", problems.size() - kProblemsListed);
  }
  throw Error(ErrorCode::kInvalidInput, text);
}

void check_tokenizer(const Tokenizer& tokenizer, const Architecture& arch,
                     const std::string& origin) {
  if (tokenizer.vocabulary_size() <= arch.vocabulary) return;
  fail(ErrorCode::kInvalidInput,
       "{}: has token ids up to {}, but the model's embedding has {} rows",
       origin, tokenizer.vocabulary_size() - 1, arch.vocabulary);
}

}  // namespace llmpress
