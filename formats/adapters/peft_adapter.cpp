#include "formats/adapters/peft_adapter.h"

#include <array>
#include <string_view>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "formats/adapters/adapter_folder.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/typed_tensors.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "base_model.model.";

enum Role : std::size_t {
  kA,
  kB,
  kLoraBias,
  kEmbeddingA,
  kEmbeddingB,
  kMagnitude,
  kWeight,
  kBias,
  kRoles
};

struct Suffix {
  std::string_view text;
  Role role;
};
// The first that fits. PEFT names the base's own parameters "base_layer" where
// it wrapped the module.
constexpr std::array<Suffix, 11> kSuffixes{
    {{".lora_A.weight", kA},
     {".lora_B.weight", kB},
     {".lora_B.bias", kLoraBias},
     {".lora_embedding_A", kEmbeddingA},
     {".lora_embedding_B", kEmbeddingB},
     {".lora_magnitude_vector", kMagnitude},
     {".lora_magnitude_vector.weight", kMagnitude},
     {".base_layer.weight", kWeight},
     {".base_layer.bias", kBias},
     {".weight", kWeight},
     {".bias", kBias}}};

using ModuleTensors = std::array<const TensorInfo*, kRoles>;

[[noreturn]] void refuse(const TensorInfo& info, const std::string& what,
                         ErrorCode code = ErrorCode::kInvalidInput) {
  fail(code, "{}: {}", subject_of(info), what);
}

void place_tensor(const TensorInfo& info,
                  std::map<std::string, ModuleTensors>& modules) {
  std::string_view name = info.name;
  if (!name.starts_with(kPrefix)) {
    refuse(info, formatted("wanted a name that begins with {}", kPrefix),
           ErrorCode::kUnsupported);
  }
  name.remove_prefix(kPrefix.size());
  for (const Suffix& suffix : kSuffixes) {
    if (!name.ends_with(suffix.text) || name.size() == suffix.text.size()) {
      continue;
    }
    const std::string path(name.substr(0, name.size() - suffix.text.size()));
    if (path.find("lora_") != std::string::npos ||
        path.find("base_layer") != std::string::npos) {
      break;
    }
    const TensorInfo*& slot =
        modules.try_emplace(path, ModuleTensors{}).first->second[suffix.role];
    if (slot != nullptr) refuse(info, "means the same as '" + slot->name + "'");
    slot = &info;
    return;
  }
  refuse(info, "is not a part of LoRA, rsLoRA or DoRA that is known here",
         ErrorCode::kUnsupported);
}

void require_shape_of(const TensorInfo& info,
                      const std::vector<std::size_t>& wanted,
                      const std::string& because) {
  if (info.shape == wanted) return;
  refuse(info, "has shape " + shape_text(info.shape) + ", wanted " +
                   shape_text(wanted) + because);
}

// Both halves of the factors, of a Linear or of an embedding.
void check_halves(const ModuleTensors& parts) {
  const auto pair = [&](Role a, Role b, const char* other) {
    if ((parts[a] == nullptr) == (parts[b] == nullptr)) return;
    refuse(parts[a] != nullptr ? *parts[a] : *parts[b],
           formatted("is there without its {}", other));
  };
  pair(kA, kB, "lora_A or lora_B");
  pair(kEmbeddingA, kEmbeddingB, "lora_embedding_A or lora_embedding_B");
  if (parts[kA] != nullptr && parts[kEmbeddingA] != nullptr) {
    refuse(*parts[kA], "stands beside '" + parts[kEmbeddingA]->name + "'");
  }
  const bool factors = parts[kA] != nullptr || parts[kEmbeddingA] != nullptr;
  for (const Role role : {kLoraBias, kMagnitude}) {
    if (parts[role] != nullptr && !factors) {
      refuse(*parts[role], "is there without its lora_A and lora_B");
    }
  }
}

// Wanted by the configuration and there, or neither.
void check_extra(const TensorInfo* tensor, bool wanted, const char* key,
                 const TensorInfo& B) {
  if (tensor != nullptr && !wanted) {
    refuse(*tensor, formatted("is there, but {} is off", key));
  }
  if (tensor == nullptr && wanted) {
    refuse(B, formatted("comes alone, but {} is on", key));
  }
}

std::vector<float> vector_of(const TensorReader& tensors,
                             const TensorInfo& info, std::size_t size) {
  require_shape_of(info, {size}, " from B");
  return read_vector(tensors, info.name, size);
}

void read_factors(const PeftConfig& config, const std::string& path,
                  const ModuleTensors& parts, const TensorReader& tensors,
                  PeftModule& module) {
  module.embedding = parts[kEmbeddingA] != nullptr;
  const TensorInfo& A = *parts[module.embedding ? kEmbeddingA : kA];
  const TensorInfo& B = *parts[module.embedding ? kEmbeddingB : kB];
  for (const TensorInfo* const half : {&A, &B}) {
    if (half->shape.size() != 2 || half->shape[0] == 0 || half->shape[1] == 0) {
      refuse(*half, "has shape " + shape_text(half->shape) +
                        ", wanted two dimensions, not empty");
    }
  }
  const std::size_t rank = config.rank_of(path), out = B.shape[0];
  const std::string because =
      formatted(" of rank {} from adapter_config.json", rank);
  require_shape_of(A, {rank, A.shape[1]}, because);
  require_shape_of(B, {out, rank}, because);
  check_extra(parts[kMagnitude], config.use_dora, "use_dora", B);
  check_extra(parts[kLoraBias], config.lora_bias && !module.embedding,
              "lora_bias", B);
  module.A = read_matrix(tensors, A.name);
  module.B = read_matrix(tensors, B.name);
  module.scaling = config.scaling_of(path);
  if (parts[kMagnitude] != nullptr) {
    module.magnitude = vector_of(tensors, *parts[kMagnitude], out);
  }
  if (parts[kLoraBias] != nullptr) {
    module.lora_bias = vector_of(tensors, *parts[kLoraBias], out);
  }
}

std::optional<PeftReplacement> replacement_of(const TensorReader& tensors,
                                              const TensorInfo* info) {
  if (info == nullptr) return std::nullopt;
  const MatrixF values = read_matrix(tensors, info->name);
  return PeftReplacement{
      .shape = info->shape,
      .values = {values.data().begin(), values.data().end()}};
}

}  // namespace

PeftAdapter read_peft_tensors(PeftConfig config, const TensorReader& tensors) {
  std::map<std::string, ModuleTensors> modules;
  for (const TensorInfo& info : tensors.tensors()) place_tensor(info, modules);
  if (modules.empty()) {
    throw Error(ErrorCode::kInvalidInput, "adapter: holds no tensors");
  }
  PeftAdapter adapter{.config = std::move(config)};
  for (const auto& [path, parts] : modules) {
    check_halves(parts);
    PeftModule module;
    if (parts[kA] != nullptr || parts[kEmbeddingA] != nullptr) {
      read_factors(adapter.config, path, parts, tensors, module);
    }
    module.weight = replacement_of(tensors, parts[kWeight]);
    module.bias = replacement_of(tensors, parts[kBias]);
    adapter.modules.emplace(path, std::move(module));
  }
  return adapter;
}

PeftAdapter read_peft_adapter(const fs::path& directory) {
  const fs::path config = directory / "adapter_config.json";
  PeftConfig parsed = parse_peft_config(read_file(config), config.string());
  const auto tensors = open_adapter_tensors(directory);
  return read_peft_tensors(std::move(parsed), *tensors);
}

}  // namespace llmpress
