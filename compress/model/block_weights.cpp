#include "compress/model/block_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/model/facts.h"
#include "compress/model/mxfp4_stack.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/dense_linear.h"

namespace llmpress {
namespace {

[[noreturn]] void invalid(const Checkpoint& checkpoint,
                          const std::string& what) {
  fail(ErrorCode::kInvalidInput, "{}: {}", checkpoint.path(), what);
}

std::string shape_text(std::size_t rows, std::size_t cols) {
  return formatted("[{}, {}]", rows, cols);
}

// Some quantizers write a bias of zeros for every Linear: that is no bias.
void check_bias(const Checkpoint& checkpoint, const std::string& name,
                const LinearSpec& spec, std::vector<float>& bias) {
  if (spec.bias) {
    if (bias.size() != spec.out) {
      invalid(checkpoint, formatted("'{}' has a bias of {}, wanted {}", name,
                                    bias.size(), spec.out));
    }
    return;
  }
  if (std::any_of(bias.begin(), bias.end(), [](float b) { return b != 0; })) {
    invalid(checkpoint,
            "'" + name +
                "' has a bias, but config.json says that it has none "
                "(attention_bias, mlp_bias)");
  }
  bias.clear();
}

// A part of a tensor that holds several Linears, or one the other way round.
class StoredElsewhere {
 public:
  StoredElsewhere(const Checkpoint& checkpoint, std::string block,
                  const LinearSpec& spec)
      : checkpoint_(checkpoint), block_(std::move(block)), spec_(spec) {}

  LinearWeights read() const {
    const LinearStorage& storage = *spec_.storage;
    const std::string name = block_ + "." + storage.tensor;
    const TensorInfo& info = checkpoint_.tensors().require(name);
    const std::size_t rows = stored_rows();
    std::vector<std::size_t> wanted{rows, spec_.in};
    if (storage.transposed) std::swap(wanted[0], wanted[1]);
    std::vector<std::size_t> found = info.shape;
    if (storage.index && !found.empty()) {
      if (*storage.index >= found[0]) {
        invalid(checkpoint_, formatted("'{}' has {} experts", name, found[0]));
      }
      found.erase(found.begin());
    }
    if (found != wanted) {
      invalid(checkpoint_, "'" + name + "' does not hold matrices " +
                               shape_text(wanted[0], wanted[1]));
    }
    if (info.dtype != DType::kF32 && info.dtype != DType::kF16 &&
        info.dtype != DType::kBF16) {
      fail(ErrorCode::kUnsupported,
           "{}: '{}' holds several Linears in a type that only "
           "`<Linear>.weight` is read in, wanted F32, F16 or BF16",
           checkpoint_.path(), name);
    }
    LinearWeights linear{.weight = cut(info, rows)};
    if (spec_.bias) linear.bias = read_bias();
    return linear;
  }

  LinearWeights read(const Mxfp4Stack& stack) const {
    constexpr std::size_t kGroup = 32, kGroupBytes = kGroup / 2;
    const std::size_t index = spec_.storage->index.value_or(0);
    const std::size_t rows = stored_rows(), groups = spec_.in / kGroup;
    std::vector<std::size_t> wanted = stack.scales->shape;
    if (spec_.in % kGroup != 0 || wanted.size() != 3 || index >= wanted[0] ||
        wanted[1] != rows || wanted[2] != groups) {
      fail(ErrorCode::kInvalidInput,
           "{}: '{}' has shape {}, wanted [above {}, {}, {}] for {} inputs in "
           "groups of 32",
           checkpoint_.path(), stack.scales->name,
           llmpress::shape_text(stack.scales->shape), index, rows,
           (spec_.in + kGroup - 1) / kGroup, spec_.in);
    }
    wanted.push_back(kGroupBytes);
    require_shape(*stack.blocks, wanted);
    MicroFp4Weight weight{
        .out = spec_.out,
        .in = spec_.in,
        .kind = MicroFp4Kind::kMxfp4,
        .codes = cut_rows(*stack.blocks, index * rows, groups * kGroupBytes),
        .scales = cut_rows(*stack.scales, index * rows, groups)};
    LinearWeights linear{.weight = std::move(weight)};
    check(linear.weight, formatted("{}: '{}' of expert {}", checkpoint_.path(),
                                   stack.blocks->name, index));
    if (spec_.bias) linear.bias = read_bias();
    return linear;
  }

 private:
  std::size_t stored_rows() const {
    return spec_.storage->rows == 0 ? spec_.out : spec_.storage->rows;
  }

  // The octets of W's rows, each `width` long, from row `first` on.
  std::vector<std::uint8_t> cut_rows(const TensorInfo& info, std::size_t first,
                                     std::size_t width) const {
    require_dtype(info, DType::kU8);
    const TensorBytes data = checkpoint_.tensors().read(info);
    std::vector<std::uint8_t> octets(spec_.out * width);
    for (std::size_t o = 0; o < spec_.out; ++o) {
      std::memcpy(&octets[o * width],
                  &data.bytes[(first + stored_row(o)) * width], width);
    }
    return octets;
  }

  DenseWeight cut(const TensorInfo& info, std::size_t rows) const {
    const LinearStorage& storage = *spec_.storage;
    const TensorBytes data = checkpoint_.tensors().read(info);
    const std::size_t matrix = bytes_of(info.dtype, rows * spec_.in);
    const auto from =
        data.bytes.subspan(storage.index.value_or(0) * matrix, matrix);
    const std::size_t element = bytes_of(info.dtype, 1);
    std::vector<std::byte> bytes(spec_.out * spec_.in * element);
    if (storage.transposed) {
      transpose(from, rows, element, bytes);
    } else {
      const std::size_t row = spec_.in * element;
      for (std::size_t o = 0; o < spec_.out; ++o) {
        std::ranges::copy(from.subspan(stored_row(o) * row, row),
                          bytes.begin() + static_cast<std::ptrdiff_t>(o * row));
      }
    }
    check_finite(info.dtype, bytes, spec_.in,
                 checkpoint_.path().string() + ": '" + info.name + "'");
    return {.out = spec_.out,
            .in = spec_.in,
            .dtype = info.dtype,
            .data = std::move(bytes)};
  }

  // Row o of W in the tensor.
  std::size_t stored_row(std::size_t o) const {
    return spec_.storage->first_row + o * spec_.storage->row_step;
  }

  // W [out, in] from columns of [in, rows]; a few columns at a time, so that
  // both sides stay in the cache.
  void transpose(std::span<const std::byte> from, std::size_t rows,
                 std::size_t element, std::span<std::byte> to) const {
    constexpr std::size_t kColumns = 16;
    for (std::size_t o0 = 0; o0 < spec_.out; o0 += kColumns) {
      const std::size_t end = std::min(o0 + kColumns, spec_.out);
      for (std::size_t i = 0; i < spec_.in; ++i) {
        for (std::size_t o = o0; o < end; ++o) {
          std::memcpy(&to[(o * spec_.in + i) * element],
                      &from[(i * rows + stored_row(o)) * element], element);
        }
      }
    }
  }

  std::vector<float> read_bias() const {
    const LinearStorage& storage = *spec_.storage;
    const bool own = storage.bias_tensor.empty();
    const std::string name =
        block_ + "." + (own ? spec_.name + ".bias" : storage.bias_tensor);
    const TensorInfo& info = checkpoint_.tensors().require(name);
    std::size_t count = 1;
    for (const std::size_t d : info.shape) count *= d;
    std::vector<float> all(count);
    decode_floats(info.dtype, checkpoint_.tensors().read(info).bytes, all);
    if (own) return all;
    const std::size_t rows = stored_rows();
    const std::size_t first = storage.index.value_or(0) * rows;
    if (first + rows > count) {
      invalid(checkpoint_, "'" + name + "' is too small");
    }
    std::vector<float> bias;
    for (std::size_t o = 0; o < spec_.out; ++o) {
      bias.push_back(all[first + stored_row(o)]);
    }
    return bias;
  }

  const Checkpoint& checkpoint_;
  std::string block_;
  const LinearSpec& spec_;
};

std::vector<float> read_parameter(const Checkpoint& checkpoint,
                                  const std::string& name,
                                  const ParameterSpec& spec) {
  if (!spec.constant.empty()) return spec.constant;
  const TensorInfo* const info = checkpoint.tensors().find(name);
  if (info == nullptr) invalid(checkpoint, "'" + name + "' is missing");
  if (info->shape != spec.shape) {
    invalid(checkpoint, "'" + name +
                            "' has another shape than config.json "
                            "asks for");
  }
  std::size_t count = 1;
  for (const std::size_t d : spec.shape) count *= d;
  std::vector<float> values(count);
  decode_floats(info->dtype, checkpoint.tensors().read(*info).bytes, values);
  if (!std::ranges::all_of(values, [](float x) { return std::isfinite(x); })) {
    invalid(checkpoint, "'" + name + "' holds a value that is not finite");
  }
  return values;
}

}  // namespace

NormWeights read_norm(const Checkpoint& checkpoint, const std::string& name,
                      std::size_t width, bool bias, float offset) {
  NormWeights norm;
  norm.gain = read_vector(checkpoint.tensors(), name + ".weight", width);
  if (bias)
    norm.bias = read_vector(checkpoint.tensors(), name + ".bias", width);
  norm.offset = offset;
  return norm;
}

const TensorInfo* shared_tensor(const Checkpoint& checkpoint,
                                const std::string& block_name,
                                const LinearSpec& spec) {
  if (!spec.storage) return nullptr;
  const std::string own = block_name + "." + spec.name;
  const std::string tensor = block_name + "." + spec.storage->tensor;
  if (tensor == own + ".weight") return checkpoint.plain_weight(own);
  return checkpoint.tensors().find(tensor);
}

std::optional<Mxfp4Stack> find_mxfp4_stack(const Checkpoint& checkpoint,
                                           const std::string& block_name,
                                           const LinearSpec& spec) {
  if (!spec.storage || !spec.storage->index) return std::nullopt;
  const std::string tensor = block_name + "." + spec.storage->tensor;
  const Mxfp4Stack stack{
      .blocks = checkpoint.tensors().find(tensor + "_blocks"),
      .scales = checkpoint.tensors().find(tensor + "_scales")};
  if (stack.blocks == nullptr || stack.scales == nullptr) return std::nullopt;
  return stack;
}

namespace {

// Where one Linear of a block lies.
struct BlockPlace {
  const Checkpoint& checkpoint;
  const LinearSpec& spec;
  std::string block{};  // of the architecture
  std::string name{};   // the Linear's, in full

  BlockPlace(const Checkpoint& from, const Architecture& arch,
             std::size_t layer, std::size_t index)
      : checkpoint(from),
        spec(arch.block(layer).linears.at(index)),
        block(arch.block_name(layer)),
        name(arch.linear_name(layer, index)) {}

  // From a tensor that is not its own.
  std::optional<LinearWeights> read_elsewhere() const {
    if (shared_tensor(checkpoint, block, spec) != nullptr) {
      return StoredElsewhere(checkpoint, block, spec).read();
    }
    if (const auto stack = find_mxfp4_stack(checkpoint, block, spec)) {
      return StoredElsewhere(checkpoint, block, spec).read(*stack);
    }
    return std::nullopt;
  }

  void check(std::size_t out, std::size_t in, std::vector<float>& bias) const {
    if (out != spec.out || in != spec.in) {
      invalid(checkpoint, "'" + name + "' is " + shape_text(out, in) +
                              ", wanted " + shape_text(spec.out, spec.in));
    }
    check_bias(checkpoint, name, spec, bias);
  }
};

}  // namespace

LinearWeights read_block_linear(const Checkpoint& checkpoint,
                                const Architecture& arch, std::size_t layer,
                                std::size_t index) {
  const BlockPlace place(checkpoint, arch, layer, index);
  std::optional<LinearWeights> linear = place.read_elsewhere();
  if (!linear) linear = checkpoint.read_linear(place.name);
  place.check(rows_of(linear->weight), cols_of(linear->weight), linear->bias);
  return std::move(*linear);
}

LinearPart read_block_linear_part(const Checkpoint& checkpoint,
                                  const Architecture& arch, std::size_t layer,
                                  std::size_t index, const RowChoice& choice) {
  const BlockPlace place(checkpoint, arch, layer, index);
  std::optional<LinearWeights> elsewhere = place.read_elsewhere();
  LinearPart part = elsewhere ? take_part(std::move(*elsewhere), choice)
                              : checkpoint.read_linear_part(place.name, choice);
  place.check(part.out, part.in, part.linear.bias);
  return part;
}

LinearRows read_block_linear_rows(const Checkpoint& checkpoint,
                                  const Architecture& arch, std::size_t layer,
                                  std::size_t index) {
  const BlockPlace place(checkpoint, arch, layer, index);
  std::optional<LinearWeights> elsewhere = place.read_elsewhere();
  LinearRows linear = elsewhere ? rows_of_linear(std::move(*elsewhere))
                                : checkpoint.read_linear_rows(place.name);
  place.check(linear.W.rows, linear.W.cols, linear.rest.bias);
  return linear;
}

std::vector<LinearWeights> read_written_linears(const Checkpoint& checkpoint,
                                                const Architecture& arch,
                                                std::size_t layer) {
  std::vector<LinearWeights> linears;
  for (std::size_t i = 0; i < arch.block(layer).linears.size(); ++i) {
    linears.push_back(checkpoint.read_linear(arch.linear_name(layer, i)));
  }
  return linears;
}

std::map<std::string, NormWeights> read_block_norms(
    const Checkpoint& checkpoint, const Architecture& arch, std::size_t layer) {
  std::map<std::string, NormWeights> norms;
  for (const NormSpec& norm : arch.block(layer).norms) {
    norms[norm.name] =
        read_norm(checkpoint, arch.block_name(layer) + "." + norm.name,
                  norm.width, norm.bias, norm.offset);
  }
  return norms;
}

std::vector<std::vector<float>> read_block_parameters(
    const Checkpoint& checkpoint, const Architecture& arch, std::size_t layer) {
  std::vector<std::vector<float>> parameters;
  for (const ParameterSpec& parameter : arch.block(layer).parameters) {
    parameters.push_back(read_parameter(
        checkpoint, arch.block_name(layer) + "." + parameter.name, parameter));
  }
  return parameters;
}

namespace {

// A recurrent block keeps no keys and values.
std::optional<KvScheme> own_kv_scheme(const Checkpoint& checkpoint,
                                      const Architecture& arch,
                                      std::size_t layer) {
  if (key_value_modules(arch.block(layer)).empty()) return std::nullopt;
  return checkpoint.kv_scheme(arch.block_name(layer));
}

}  // namespace

BlockWeights read_block_rest(const Checkpoint& checkpoint,
                             const Architecture& arch, std::size_t layer) {
  return {.norms = read_block_norms(checkpoint, arch, layer),
          .parameters = read_block_parameters(checkpoint, arch, layer),
          .kv_scheme = own_kv_scheme(checkpoint, arch, layer)};
}

BlockWeights read_block(const Checkpoint& checkpoint, const Architecture& arch,
                        std::size_t layer) {
  BlockWeights block = read_block_rest(checkpoint, arch, layer);
  for (std::size_t i = 0; i < arch.block(layer).linears.size(); ++i) {
    block.linears.push_back(read_block_linear(checkpoint, arch, layer, i));
  }
  return block;
}

}  // namespace llmpress
