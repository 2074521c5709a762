// What an output may be written over: nothing, an empty folder, or what
// llmpress itself wrote with nothing added since. All of it carries a mark:
//
//   folder          llmpress.json, whose "files" names all that was written;
//                   llmpress.prepacked may stand beside
//   HDF5 file       attribute llmpress_format
//   GGUF file       key llmpress.version of its metadata
//   imatrix         as GGUF, or the name of its text
//   safetensors     "llmpress_version" in its __metadata__
//   JSON            an object with "llmpress_version"
//   report folder   the mark in its report.json; other files stay as they are
//   OUTPUT.resume   a file `fingerprint` that begins with kResumeMark
#pragma once

#include <array>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>

namespace llmpress {

enum class OutputKind {
  kFolder,
  kHdf5File,
  kGgufFile,
  kSafetensors,
  kJsonFile,
  kImatrix,
  kReport,
  kResume
};

inline constexpr std::string_view kProvenanceFile = "llmpress.json";
// Weights laid out for the kernels (compress/model/prepacked_weights.h), in a
// folder and beside a file: a copy of what is there, made again when it is gone.
inline constexpr std::string_view kPrepackedFile = "llmpress.prepacked";
inline constexpr std::string_view kPrepackedSuffix = ".prepacked";
inline constexpr std::string_view kVersionKey = "llmpress_version";
inline constexpr std::string_view kResumeFile = "fingerprint";
inline constexpr std::string_view kResumeMark = "llmpress, unfinished run ";
inline constexpr std::array<std::string_view, 3> kReportFiles{
    "report.json", "report.md", "report.html"};

// Throws Error(kInvalidArgument) that names `path` and what is in the way.
void check_replaceable(const std::filesystem::path& path, OutputKind kind);

// `json`, an object or nothing, with "llmpress_version" in front where it is
// not there, and with "files" unless that is empty.
std::string marked_json(const std::string& json,
                        const std::set<std::string>& files = {});

}  // namespace llmpress
