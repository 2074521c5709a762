#include "formats/adapters/adapter_folder.h"

#include <algorithm>
#include <array>
#include <set>

#include "compress/core/formatted.h"
#include "compress/core/setting.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/sharded.h"
#include "formats/containers/torch_file.h"
#include "formats/files/atomic_file.h"
#include "formats/files/json_reader.h"
#include "formats/files/mapped_file.h"
#include "formats/files/path_location.h"
#include "formats/files/replaceable.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kTensorFile = "adapter_model.safetensors";

constexpr std::array<Named<AdapterFormat>, 5> kTypes{
    {{"LORA", AdapterFormat::kLora},
     {"PREFIX_TUNING", AdapterFormat::kPrefix},
     {"PROMPT_TUNING", AdapterFormat::kPrompt},
     {"BOTTLENECK", AdapterFormat::kBottleneck},
     {"SPARSE_DIFFERENCE", AdapterFormat::kDifference}}};

}  // namespace

std::string_view peft_type_of(AdapterFormat format) {
  return std::ranges::find(kTypes, format, &Named<AdapterFormat>::value)->name;
}

AdapterFormat read_adapter_format(const fs::path& directory) {
  const fs::path config = directory / kConfigFile;
  const JsonDocument document(read_file(config), config.string());
  const JsonView type = document.root().at("peft_type");
  const auto* const row =
      std::ranges::find(kTypes, type.text(), &Named<AdapterFormat>::name);
  if (row != kTypes.end()) return row->value;
  type.unsupported("found '" + type.text() +
                   "', wanted LORA, PREFIX_TUNING, PROMPT_TUNING, BOTTLENECK "
                   "or SPARSE_DIFFERENCE");
}

std::unique_ptr<TensorReader> open_adapter_tensors(const fs::path& directory) {
  const fs::path single = directory / kTensorFile;
  const fs::path index = directory / "adapter_model.safetensors.index.json";
  if (path_exists(single)) return open_safetensors(single);
  if (path_exists(index)) return open_sharded(index);
  const fs::path torch = directory / "adapter_model.bin";
  if (path_exists(torch)) return open_torch_file(torch);
  fail(ErrorCode::kIo,
       "{}: has neither adapter_model.safetensors nor adapter_model.bin",
       directory);
}

void write_adapter_folder(const fs::path& directory, const std::string& config,
                          std::span<const NamedTensor> tensors,
                          const std::map<std::string, std::string>& files) {
  const fs::path target = resolve_path(directory);
  check_replaceable(target, OutputKind::kFolder);
  const PartialDirectory partial(target);
  const auto write = [&](const std::string& name, const std::string& content) {
    OutputFile file(partial.path() / name);
    file.write(content);
    file.close();
  };
  write(kConfigFile, config);
  write(kTensorFile, write_safetensors(tensors, {{"format", "pt"}}));
  std::set<std::string> names{kConfigFile, kTensorFile,
                              std::string(kProvenanceFile)};
  std::string provenance;
  for (const auto& [name, content] : files) {
    if (name == kProvenanceFile) {
      provenance = content;
      continue;
    }
    write(name, content);
    names.insert(name);
  }
  write(std::string(kProvenanceFile), marked_json(provenance, names));
  sync_directory(partial.path());
  check_replaceable(target, OutputKind::kFolder);  // hours may have passed
  replace_path(partial.path(), target);
}

}  // namespace llmpress
