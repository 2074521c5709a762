#include "compress/pipeline/run/model_assembly.h"

#include <algorithm>

#include "compress/model/model_check.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/run/block_writer.h"

namespace llmpress {
namespace {

// Names of tensors that the blocks account for.
bool belongs_to_block(const std::string& tensor, const Architecture& arch) {
  const auto layer = layer_of(tensor, arch);
  return layer &&
         written_with_block(arch.block(*layer),
                            tensor.substr(arch.block_name(*layer).size() + 1));
}

using Ends = std::map<std::string, LinearWeights>;

// An embedding or head that is packed in the source keeps its codes.
Ends with_packed_ends(const ModelParts& parts) {
  Ends ends = parts.ends;
  for (const std::string& name : {parts.arch->embedding, parts.arch->head}) {
    if (ends.contains(name) || !parts.source->has_linear(name) ||
        dense_matrix(*parts.source, name) != nullptr) {
      continue;
    }
    ends[name] = parts.source->read_linear(name);
  }
  return ends;
}

// Byte for byte.
void copy_other_tensors(const ModelParts& parts, const Ends& ends,
                        ArtifactWriter& writer) {
  const TensorReader& reader = parts.source->tensors();
  const auto written = [&](const std::string& tensor) {
    return std::ranges::any_of(ends, [&](const auto& end) {
      return tensor.starts_with(end.first + ".");
    });
  };
  for (const TensorInfo& info : reader.tensors()) {
    if (belongs_to_block(info.name, *parts.arch) || written(info.name)) {
      continue;
    }
    writer.add_stored_tensor(
        {.info = info,
         .read = [&reader, info] { return reader.read(info); },
         .from = place_of(reader, info)});
  }
}

}  // namespace

void add_model(ArtifactWriter& writer, const ModelParts& parts) {
  const Architecture& arch = *parts.arch;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    add_block(
        writer, parts.block(layer), layer, arch,
        {.written = parts.written ? parts.written(layer) : StoredLinears{},
         .checkpoint = parts.source,
         .block = arch.block_name(layer),
         .experts_apart = parts.experts_apart,
         .mxfp4_stacks = parts.mxfp4_stacks});
    report(parts.progress,
           {.phase = parts.phase, .done = layer + 1, .total = arch.layers});
  }
  const Ends ends = with_packed_ends(parts);
  for (const auto& [name, linear] : ends) writer.add_linear(name, linear);
  copy_other_tensors(parts, ends, writer);
}

CompressedBlock stored_block(const Checkpoint& checkpoint,
                             const Architecture& arch, std::size_t layer) {
  return {.weights = read_block(checkpoint, arch, layer),
          .norm_dtypes = read_norm_dtypes(checkpoint, arch, layer)};
}

}  // namespace llmpress
