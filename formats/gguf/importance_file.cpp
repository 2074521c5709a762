#include "formats/gguf/importance_file.h"

#include <algorithm>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_names.h"
#include "formats/gguf/gguf_parts.h"

namespace llmpress {

ImatrixNames::ImatrixNames(const std::string& config_json,
                           const std::string& origin) {
  const ConfigReader config =
      ConfigReader::parse(config_json, config_place(origin));
  const auto type = config.text("model_type");
  for (const GgufArchitecture& row : gguf_architectures()) {
    if (type != row.model_type) continue;
    if (row.written != nullptr && !row.written(config)) continue;
    architecture_ = &row;
    break;
  }
}

ImatrixPlace ImatrixNames::place_of(std::string_view module) const {
  std::string own = std::string(module) + ".weight";
  if (architecture_ == nullptr) return {.name = std::move(own)};
  const auto places = gguf_places(*architecture_, own);
  // Of several parts one that has the matrix's inputs.
  const auto place = std::ranges::find_if(
      places, [](const GgufPlace& p) { return !is_transposed_part(p.change); });
  if (place == places.end()) return {.name = std::move(own)};
  return {
      .name = place->name, .index = place->expert, .stacked = place->stacked};
}

ImportanceFile::ImportanceFile(const std::filesystem::path& path,
                               ImatrixNames names)
    : path_(path.string()), imatrix_(read_imatrix(path)), names_(names) {}

std::vector<float> ImportanceFile::of(std::string_view module,
                                      std::size_t in) const {
  const ImatrixPlace place = names_.place_of(module);
  const auto found = imatrix_.entries.find(place.name);
  if (found == imatrix_.entries.end()) {
    fail(ErrorCode::kInvalidInput,
         "{}: no importance of '{}', which would be '{}'; leave the Linear out "
         "by 'ignore', or measure another file",
         path_, module, place.name);
  }
  try {
    return mean_squares(found->second, place.index, in, place.name);
  } catch (const Error& e) {
    fail(e.code(), "{}: {}", path_, e.what());
  }
}

}  // namespace llmpress
