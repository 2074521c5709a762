#include "compress/pipeline/evaluation/model_copy.h"

#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "compress/core/checked.h"
#include "compress/pipeline/run/resume_store.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

TensorBytes converted(const TensorInfo& info, const TensorBytes& data,
                      DType dtype) {
  if (dtype == info.dtype) return data;
  std::vector<float> values(checked_elements(info.shape, info.name));
  decode_floats(info.dtype, data.bytes, values);
  const auto tensor = std::make_shared<const NamedTensor>(
      rounded_tensor(info.name, dtype, info.shape, values));
  return {tensor->bytes, tensor};
}

std::string with_dtype(const std::string& config_json, DType dtype) {
  auto json = nlohmann::ordered_json::parse(config_json);
  json["torch_dtype"] = facts(dtype).torch_name;
  return json.dump(2);
}

// How many tensors have been read, whichever thread reads them.
class ReadCount {
 public:
  ReadCount(const Progress& progress, std::size_t total)
      : progress_(progress), total_(total) {}

  void next(const std::string& tensor) {
    const std::lock_guard lock(mutex_);
    report(
        progress_,
        {.phase = "write", .done = done_++, .total = total_, .detail = tensor});
  }
  void finish() {
    report(progress_, {.phase = "write", .done = total_, .total = total_});
  }

 private:
  const Progress& progress_;
  std::size_t total_, done_ = 0;
  std::mutex mutex_{};
};

void copy(const Checkpoint& checkpoint, const ModelCopyOptions& options,
          const std::filesystem::path& kept) {
  const auto writer = make_artifact_writer({.output = options.output,
                                            .format = "safetensors",
                                            .source = checkpoint.path(),
                                            .pool = options.pool,
                                            .kept = kept});
  const TensorReader& reader = checkpoint.tensors();
  ReadCount count(options.progress, reader.tensors().size());
  for (const TensorInfo& from : reader.tensors()) {
    TensorInfo to = from;
    if (options.dtype && is_plain_float(from.dtype)) {
      to.dtype = *options.dtype;
      to.bytes = bytes_of(to.dtype, checked_elements(to.shape, to.name));
    }
    writer->add_stored_tensor(
        {.info = to, .read = [&count, &reader, &from, dtype = to.dtype] {
           count.next(from.name);
           return converted(from, reader.read(from), dtype);
         }});
  }
  for (const auto& [name, content] : options.files) {
    writer->add_file(name, content);
  }
  writer->finish(options.dtype
                     ? with_dtype(checkpoint.config_json(), *options.dtype)
                     : checkpoint.config_json());
  count.finish();
}

}  // namespace

void copy_model(const Checkpoint& checkpoint, const ModelCopyOptions& options) {
  if (!options.resume) return copy(checkpoint, options, {});
  ResumeStore store(options.output, *options.resume);
  copy(checkpoint, options, store.directory() / "copied");
  store.remove();
}

}  // namespace llmpress
