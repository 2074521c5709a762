#include "compress/surgery/structured_ends.h"

#include <algorithm>
#include <string>

#include "compress/core/formatted.h"
#include "compress/model/model_check.h"
#include "compress/model/tensor_places.h"
#include "formats/containers/typed_tensors.h"
#include "pruning/unit_selection.h"

namespace llmpress {
namespace {

class EndsWriter {
 public:
  EndsWriter(const ReducedEndsJob& job, ArtifactWriter& writer)
      : job_(job), writer_(writer), reader_(job.checkpoint->tensors()) {}

  void write() {
    write_module(job_.arch->embedding, nullptr);
    if (job_.checkpoint->has_linear(job_.arch->head)) {
      write_module(job_.arch->head, job_.head ? &*job_.head : nullptr);
    }
    for (const TensorInfo& info : reader_.tensors()) write_other(info);
  }

 private:
  // Embedding or head [vocabulary, hidden]: dense ones keep their type.
  void write_module(const std::string& module, const MatrixF* refitted) {
    const TensorInfo* dense = dense_matrix(*job_.checkpoint, module);
    if (dense != nullptr && job_.channels.empty()) {
      copy(*dense, dense->name);
      return;
    }
    MatrixF W;
    if (refitted != nullptr) {
      W = *refitted;
    } else {
      W = dense != nullptr
              ? read_matrix(reader_, dense->name)
              : dequantize(job_.checkpoint->read_linear(module).weight);
      if (!job_.channels.empty()) W = select_columns(W.view(), job_.channels);
    }
    writer_.add_tensor(rounded_tensor(
        module + ".weight", dense == nullptr ? DType::kF32 : dense->dtype,
        {W.rows(), W.cols()}, W.data()));
  }

  void write_other(const TensorInfo& info) {
    const Architecture& arch = *job_.arch;
    const bool module = info.name.starts_with(arch.embedding + ".") ||
                        info.name.starts_with(arch.head + ".");
    if (module && info.name != arch.head + ".bias") return;
    if (info.name.starts_with(arch.final_norm + ".") &&
        !job_.channels.empty()) {
      write_final_norm(info);
    } else if (info.name.starts_with(arch.block_prefix)) {
      write_block_tensor(info);
    } else {
      copy(info, info.name);
    }
  }

  void write_final_norm(const TensorInfo& info) {
    auto values = select_values(
        read_vector(reader_, info.name, job_.arch->hidden), job_.channels);
    if (info.name.ends_with(".weight")) {
      for (float& g : values) {
        g = scaled_gain(g, job_.arch->final_norm_options.offset,
                        job_.final_gain_scale);
      }
    }
    writer_.add_tensor(
        rounded_tensor(info.name, info.dtype, {values.size()}, values));
  }

  // "model.layers.7.rest" of a block that is now number 5.
  void write_block_tensor(const TensorInfo& info) {
    const std::string& prefix = job_.arch->block_prefix;
    for (std::size_t p = 0; p < job_.layers.size(); ++p) {
      const std::string block = job_.arch->block_name(job_.layers[p]) + ".";
      if (!info.name.starts_with(block)) continue;
      const std::string rest = info.name.substr(block.size());
      if (!written_with_block(job_.arch->block(job_.layers[p]), rest) &&
          std::ranges::find(job_.changed, info.name) == job_.changed.end()) {
        copy(info, formatted("{}{}.{}", prefix, p, rest));
      }
      return;
    }
  }

  void copy(const TensorInfo& info, const std::string& name) {
    const TensorBytes data = reader_.read(info);
    writer_.add_tensor({.name = name,
                        .dtype = info.dtype,
                        .shape = info.shape,
                        .bytes = {data.bytes.begin(), data.bytes.end()}});
  }

  const ReducedEndsJob& job_;
  ArtifactWriter& writer_;
  const TensorReader& reader_;
};

}  // namespace

void write_ends(const ReducedEndsJob& job, ArtifactWriter& writer) {
  EndsWriter(job, writer).write();
}

}  // namespace llmpress
