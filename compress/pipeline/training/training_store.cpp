#include "compress/pipeline/training/training_store.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <variant>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/pipeline/reports/training_report.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "formats/files/atomic_file.h"

namespace llmpress {

namespace {

// What stands in the file for a part of an optimizer's state.
template <class Numbers, class Codes>
struct PartOf {
  const char* name;
  Numbers* numbers = nullptr;
  Codes* codes = nullptr;
};
using StatePart = PartOf<std::vector<float>, std::vector<std::uint8_t>>;
using ConstStatePart =
    PartOf<const std::vector<float>, const std::vector<std::uint8_t>>;

std::vector<StatePart> parts_of(OptimizerState& state) {
  if (auto* const adam = std::get_if<AdamWState>(&state)) {
    return {{"m", &adam->first_moment}, {"v", &adam->second_moment}};
  }
  if (auto* const small = std::get_if<AdamW8BitState>(&state)) {
    return {{"m", nullptr, &small->first_codes},
            {"v", nullptr, &small->second_codes},
            {"m_absmax", &small->first_absmax},
            {"v_absmax", &small->second_absmax}};
  }
  return {{"momentum", &std::get<SgdState>(state).momentum}};
}

// To be read: the store changes nothing of what it saves.
std::vector<ConstStatePart> parts_of(const OptimizerState& state) {
  std::vector<ConstStatePart> parts;
  for (const StatePart& part : parts_of(const_cast<OptimizerState&>(state))) {
    parts.push_back({part.name, part.numbers, part.codes});
  }
  return parts;
}

std::string tensor_name(std::size_t index, const char* part) {
  return formatted("{}.{}", index, part);
}

template <class T>
std::vector<T> values_of(const TensorReader& reader, const TensorInfo& info) {
  const TensorBytes data = reader.read(info);
  std::vector<T> values(data.bytes.size() / sizeof(T));
  if (!values.empty()) {
    std::memcpy(values.data(), data.bytes.data(), data.bytes.size());
  }
  return values;
}

void check_state_size(const StatePart& part, const TensorInfo& info,
                      std::size_t weights) {
  const std::size_t elements =
      info.bytes / (part.numbers != nullptr ? sizeof(float) : 1);
  if (elements == weights || elements < weights / 128) return;
  fail(ErrorCode::kCorruptFile, "{}: has {} elements for {} weights",
       subject_of(info), elements, weights);
}

}  // namespace

FileTrainingStore::FileTrainingStore(std::filesystem::path directory)
    : directory_(std::move(directory)) {
  std::filesystem::create_directories(directory_);
}

std::filesystem::path FileTrainingStore::path_of(
    const std::string& name) const {
  return directory_ / (name + ".safetensors");
}

void FileTrainingStore::save(const std::string& name,
                             const TrainingProgress& progress,
                             std::span<const Parameter> parameters,
                             std::span<const OptimizerState> states) {
  std::vector<TensorInfo> infos;
  std::vector<std::span<const std::byte>> contents;
  const auto add = [&](std::size_t index, const char* part, DType dtype,
                       std::span<const std::byte> bytes) {
    infos.push_back({.name = tensor_name(index, part),
                     .dtype = dtype,
                     .shape = {bytes.size() / bytes_of(dtype, 1)},
                     .bytes = bytes.size()});
    contents.push_back(bytes);
  };
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    add(p, "weight", DType::kF32, std::as_bytes(parameters[p].value));
    for (const auto& part : parts_of(states[p])) {
      if (part.numbers != nullptr) {
        add(p, part.name, DType::kF32, std::as_bytes(std::span(*part.numbers)));
      } else {
        add(p, part.name, DType::kU8, std::as_bytes(std::span(*part.codes)));
      }
    }
  }
  // Tensor by tensor from where they are: nothing is held twice.
  const std::filesystem::path path = path_of(name),
                              partial = path.string() + ".new";
  std::filesystem::remove(partial);
  OutputFile file(partial);
  file.write(
      safetensors_header(infos, {{"progress", progress_to_json(progress)}}));
  for (const std::size_t i : safetensors_order(infos)) file.write(contents[i]);
  file.close();
  replace_path(partial, path);
  sync_directory(directory_);
}

bool FileTrainingStore::load(const std::string& name,
                             TrainingProgress& progress,
                             std::span<const Parameter> parameters,
                             std::span<OptimizerState> states) {
  const std::filesystem::path path = path_of(name);
  if (!std::filesystem::exists(path)) return false;
  const auto reader = open_tensors(path);
  const auto text = reader->metadata().find("progress");
  if (text == reader->metadata().end()) {
    fail(ErrorCode::kCorruptFile, "{}: is no checkpoint of training", path);
  }
  progress = progress_from_json(text->second, path.string());
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    const TensorInfo& weight = reader->require(tensor_name(p, "weight"));
    if (weight.bytes != parameters[p].value.size_bytes()) {
      fail(ErrorCode::kCorruptFile, "{}: is not of this model's '{}'",
           subject_of(weight), parameters[p].name);
    }
    std::ranges::copy(values_of<float>(*reader, weight),
                      parameters[p].value.begin());
    for (const StatePart& part : parts_of(states[p])) {
      const TensorInfo& info = reader->require(tensor_name(p, part.name));
      if (info.bytes != 0) {
        check_state_size(part, info, parameters[p].value.size());
      }
      if (part.numbers != nullptr) {
        *part.numbers = values_of<float>(*reader, info);
      } else {
        *part.codes = values_of<std::uint8_t>(*reader, info);
      }
    }
  }
  return true;
}

}  // namespace llmpress
