#include "compress/pipeline/run/block_writer.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <variant>
#include <vector>

#include "compress/model/block_weights.h"
#include "compress/model/linear_storage.h"
#include "compress/model/mxfp4_stack.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

class BlockWriter {
 public:
  BlockWriter(ArtifactWriter& writer, const CompressedBlock& block,
              std::size_t layer, const Architecture& arch,
              const BlockSource& source)
      : writer_(writer),
        block_(block),
        layer_(layer),
        arch_(arch),
        spec_(arch.block(layer)),
        source_(source) {}

  void write() {
    std::map<std::string, std::vector<std::size_t>> shared;
    for (std::size_t l = 0; l < spec_.linears.size(); ++l) {
      if (is_shared(l) && !stands_apart(spec_.linears[l])) {
        shared[spec_.linears[l].storage->tensor].push_back(l);
      } else {
        add_alone(l);
      }
    }
    for (const auto& [tensor, linears] : shared) {
      add_shared(linears);
      read_.clear();
    }
    write_norms();
    write_kv_scales();
  }

 private:
  bool stands_apart(const LinearSpec& spec) const {
    return source_.experts_apart && spec.storage && spec.storage->index;
  }

  const TensorInfo* source_tensor(std::size_t l) const {
    if (source_.checkpoint == nullptr) return nullptr;
    return shared_tensor(*source_.checkpoint, source_.block, spec_.linears[l]);
  }

  // Lies in a tensor with others, plain or in MXFP4.
  bool is_shared(std::size_t l) const {
    return source_tensor(l) != nullptr ||
           (source_.checkpoint != nullptr &&
            find_mxfp4_stack(*source_.checkpoint, source_.block,
                             spec_.linears[l]));
  }

  void add_alone(std::size_t l) {
    const std::string name = arch_.linear_name(layer_, l);
    if (!was_written()) {
      writer_.add_linear(name, block_.weights.linears[l]);
    } else if (!writer_.add_stored_linear(name, source_.written)) {
      writer_.add_linear(name, read_written(name));
    }
  }

  bool was_written() const { return source_.written.checkpoint != nullptr; }

  LinearWeights read_written(const std::string& name) const {
    const Checkpoint& written = *source_.written.checkpoint;
    check_linear(written, name, source_.written.hashes);
    return written.read_linear(name);
  }

  // Stays until the tensor that it goes into is written.
  const LinearWeights& linear(std::size_t l) {
    if (!was_written()) return block_.weights.linears[l];
    const auto [at, added] = read_.try_emplace(l);
    if (added) at->second = read_written(arch_.linear_name(layer_, l));
    return at->second;
  }

  // `linears` lie in one tensor of the source.
  void add_shared(const std::vector<std::size_t>& linears) {
    const bool plain = std::ranges::all_of(linears, [&](std::size_t l) {
      return std::holds_alternative<DenseWeight>(linear(l).weight);
    });
    if (!plain) {
      if (source_.mxfp4_stacks && are_mxfp4(linears)) {
        add_mxfp4_stack(linears);
      } else {
        for (const std::size_t l : linears) add_alone(l);
      }
      return;
    }
    const LinearSpec& first = spec_.linears[linears.front()];
    const LinearStorage& storage = *first.storage;
    const std::string prefix = arch_.block_name(layer_) + ".";
    const std::size_t rows = stored_rows(first);
    const std::size_t count = experts(linears);
    std::vector<float> values(count * rows * first.in), biases(count * rows);
    for (const std::size_t l : linears) {
      const LinearWeights& weights = linear(l);
      place_weight(spec_.linears[l], dequantize(weights.weight).view(), values);
      place_bias(spec_.linears[l], weights.bias, biases);
    }
    std::vector<std::size_t> shape{rows, first.in};
    if (storage.transposed) std::swap(shape[0], shape[1]);
    if (storage.index) shape.insert(shape.begin(), count);
    const TensorInfo* const info = source_tensor(linears.front());
    const DType dtype =
        info != nullptr
            ? info->dtype
            : std::get<DenseWeight>(linear(linears.front()).weight).dtype;
    writer_.add_tensor(
        rounded_tensor(prefix + storage.tensor, dtype, shape, values));
    if (first.bias) add_bias(first, count, rows, biases);
  }

  const MicroFp4Weight* mxfp4(std::size_t l) {
    const auto* const w = std::get_if<MicroFp4Weight>(&linear(l).weight);
    return w != nullptr && w->kind == MicroFp4Kind::kMxfp4 &&
                   w->in % w->group() == 0
               ? w
               : nullptr;
  }

  bool are_mxfp4(const std::vector<std::size_t>& linears) {
    return std::ranges::all_of(linears, [&](std::size_t l) {
      return mxfp4(l) != nullptr && spec_.linears[l].storage->index;
    });
  }

  // For each row of the stack's matrices, the row of W that stands there.
  std::vector<std::optional<std::size_t>> rows_of_stack(
      const LinearSpec& spec, std::size_t count, std::size_t rows) const {
    std::vector<float> numbers(spec.out), places(count * rows, -1.0f);
    std::iota(numbers.begin(), numbers.end(), 0.0f);
    place_bias(spec, numbers, places);
    std::vector<std::optional<std::size_t>> found(places.size());
    for (std::size_t r = 0; r < places.size(); ++r) {
      if (places[r] >= 0) found[r] = static_cast<std::size_t>(places[r]);
    }
    return found;
  }

  void add_mxfp4_stack(const std::vector<std::size_t>& linears) {
    const LinearSpec& first = spec_.linears[linears.front()];
    const std::size_t rows = stored_rows(first), count = experts(linears);
    const std::size_t groups = first.in / 32, width = groups * 16;
    std::vector<std::uint8_t> codes(count * rows * width),
        scales(count * rows * groups);
    std::vector<float> biases(count * rows);
    for (const std::size_t l : linears) {
      const MicroFp4Weight& w = *mxfp4(l);
      const auto places = rows_of_stack(spec_.linears[l], count, rows);
      for (std::size_t r = 0; r < places.size(); ++r) {
        if (!places[r]) continue;
        std::copy_n(&w.codes[*places[r] * width], width, &codes[r * width]);
        std::copy_n(&w.scales[*places[r] * groups], groups,
                    &scales[r * groups]);
      }
      place_bias(spec_.linears[l], linear(l).bias, biases);
    }
    const std::string name =
        arch_.block_name(layer_) + "." + first.storage->tensor;
    writer_.add_tensor(tensor_of(name + "_blocks", DType::kU8,
                                 {count, rows, groups, 16}, codes));
    writer_.add_tensor(
        tensor_of(name + "_scales", DType::kU8, {count, rows, groups}, scales));
    if (first.bias) add_bias(first, count, rows, biases);
  }

  std::size_t experts(const std::vector<std::size_t>& linears) const {
    std::size_t count = 0;
    for (const std::size_t l : linears) {
      count = std::max(count, stored_index(spec_.linears[l]) + 1);
    }
    return count;
  }

  void add_bias(const LinearSpec& first, std::size_t count, std::size_t rows,
                std::span<const float> biases) {
    const LinearStorage& storage = *first.storage;
    const std::string name = storage.bias_tensor.empty() ? first.name + ".bias"
                                                         : storage.bias_tensor;
    const TensorInfo& info =
        source_.checkpoint->tensors().require(source_.block + "." + name);
    std::vector<std::size_t> shape{rows};
    if (storage.index) shape.insert(shape.begin(), count);
    writer_.add_tensor(rounded_tensor(arch_.block_name(layer_) + "." + name,
                                      info.dtype, shape, biases));
  }

  void write_norms() {
    for (const auto& [name, norm] : block_.weights.norms) {
      const std::string prefix = arch_.block_name(layer_) + "." + name;
      const DType dtype = block_.norm_dtypes.at(name);
      writer_.add_tensor(rounded_tensor(prefix + ".weight", dtype,
                                        {norm.gain.size()}, norm.gain));
      if (!norm.bias.empty()) {
        writer_.add_tensor(rounded_tensor(prefix + ".bias", dtype,
                                          {norm.bias.size()}, norm.bias));
      }
    }
  }

  void write_kv_scales() {
    for (const auto& [name, scale] : block_.kv_scales) {
      writer_.add_tensor(rounded_tensor(arch_.block_name(layer_) + "." + name,
                                        DType::kF32, {1},
                                        std::span<const float>(&scale, 1)));
    }
  }

  ArtifactWriter& writer_;
  const CompressedBlock& block_;
  std::size_t layer_;
  const Architecture& arch_;
  const BlockSpec& spec_;
  const BlockSource& source_;
  std::map<std::size_t, LinearWeights> read_{};
};

}  // namespace

void add_block(ArtifactWriter& writer, const CompressedBlock& block,
               std::size_t layer, const Architecture& arch,
               const BlockSource& source) {
  BlockWriter(writer, block, layer, arch, source).write();
}

}  // namespace llmpress
