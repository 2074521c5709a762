#include "compress/pipeline/evaluation/model_copy.h"

#include <nlohmann/json.hpp>

#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

NamedTensor convert(const TensorInfo& info, const TensorBytes& data,
                    DType dtype) {
  if (dtype == info.dtype) {
    return {.name = info.name,
            .dtype = dtype,
            .shape = info.shape,
            .bytes = {data.bytes.begin(), data.bytes.end()}};
  }
  std::size_t elements = 1;
  for (const std::size_t d : info.shape) elements *= d;
  std::vector<float> values(elements);
  decode_floats(info.dtype, data.bytes, values);
  return rounded_tensor(info.name, dtype, info.shape, values);
}

std::string with_dtype(const std::string& config_json, DType dtype) {
  auto json = nlohmann::ordered_json::parse(config_json);
  json["torch_dtype"] = facts(dtype).torch_name;
  return json.dump(2);
}

}  // namespace

void copy_model(const Checkpoint& checkpoint, const ModelCopyOptions& options) {
  const auto writer = make_artifact_writer({.output = options.output,
                                            .format = "safetensors",
                                            .source = checkpoint.path()});
  const auto tensors = checkpoint.tensors().tensors();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    report(options.progress, {.phase = "write",
                              .done = i,
                              .total = tensors.size(),
                              .detail = tensors[i].name});
    const DType dtype = options.dtype && is_plain_float(tensors[i].dtype)
                            ? *options.dtype
                            : tensors[i].dtype;
    writer->add_tensor(
        convert(tensors[i], checkpoint.tensors().read(tensors[i]), dtype));
  }
  report(options.progress,
         {.phase = "write", .done = tensors.size(), .total = tensors.size()});
  for (const auto& [name, content] : options.files) {
    writer->add_file(name, content);
  }
  writer->finish(options.dtype
                     ? with_dtype(checkpoint.config_json(), *options.dtype)
                     : checkpoint.config_json());
}

}  // namespace llmpress
