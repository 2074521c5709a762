#include "compress/pipeline/adapters/merge_fingerprint.h"

#include <algorithm>

#include "compress/core/formatted.h"
#include "compress/model/model_files.h"
#include "formats/checkpoints/artifact_writer.h"

namespace llmpress {

namespace fs = std::filesystem;

std::string adapters_sha256(const std::vector<WeightedAdapter>& adapters,
                            const CombineConfig& combine) {
  std::string text = formatted(
      "{} {} {} {} {}\n", name_of(combine.method), combine.density,
      combine.majority_sign == MajoritySign::kTotal ? "total" : "frequency",
      combine.svd_rank, combine.seed);
  for (const WeightedAdapter& adapter : adapters) {
    text += formatted("{}\n", adapter.weight);
    std::vector<fs::path> files;
    std::error_code error;  // who reads it says what is wrong
    for (const auto& entry : fs::directory_iterator(adapter.path, error)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::ranges::sort(files);
    for (const fs::path& file : files) {
      text += file.filename().string() + " " + sha256_of_file(file) + "\n";
    }
  }
  return sha256_hex(text);
}

std::string merge_fingerprint(std::string_view command, const fs::path& model,
                              const std::vector<WeightedAdapter>& adapters,
                              const CombineConfig& combine,
                              std::optional<DType> dtype) {
  return formatted(
      "\nprogram's version: {}\ncommand: {}\nmodel: {}\nadapters: {}\ntype: "
      "{}\n",
      LLMPRESS_VERSION, command, sha256_hex(model_state(model)),
      adapters_sha256(adapters, combine),
      dtype ? facts(*dtype).name : "as stored");
}

}  // namespace llmpress
