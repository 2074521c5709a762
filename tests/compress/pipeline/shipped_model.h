// The model and texts that the project ships, for tests that need a trained
// one.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "formats/checkpoints/artifact_writer.h"
#include "recipes/recipe_parser.h"
#include "tests/places.h"

namespace llmpress {

inline std::filesystem::path shipped(const std::string& name) {
  return std::filesystem::path(source_dir()) / "models" / name;
}

// A recipe on the shipped model: little calibration, `stages` in YAML's flow
// style, output and nothing else.
inline Recipe small_recipe(const std::string& stages,
                           const std::filesystem::path& output,
                           const std::string& more = "") {
  return parse_recipe(
      "model: " + shipped("tinystories-3.7m").string() +
          "\ncalibration: {text: " + shipped("text/calibration.txt").string() +
          ", samples: 4, sequence_length: 64, sampling: "
          "sequential}\nstages: " +
          stages + "\noutput: {path: " + output.string() + "}\n" + more,
      "test.yaml");
}

// The contents of a directory by file name.
inline std::map<std::string, std::string> files_of(
    const std::filesystem::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    files[entry.path().filename().string()] = read_file(entry.path());
  }
  return files;
}

}  // namespace llmpress
