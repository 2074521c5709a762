// Tables in HDF5 files: calibration text that is tokenized already, and the
// statistics that calibration collects.
//
//   token ids    dataset "input_ids", I32 or I64 (or any other integer type),
//                [samples, length] or [length]
//   statistics   a group a Linear, its name with its dots; in it the members of
//                InputStats that are there: "second_moment" F32 [in, in],
//                "reference_moment" F32 [in, in], "abs_max", "abs_mean",
//                "square_mean", "min", "max" F32 [in], "sample_rows" F32
//                [rows, in], and "tokens" I64 []
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "compress/core/input_stats.h"
#include "formats/containers/tensor_io.h"

namespace llmpress {

struct TokenTable {
  std::size_t samples = 0, length = 0;
  std::vector<std::uint32_t> ids{};  // [samples, length]
};

// Throws Error(kInvalidInput) if there is no such dataset or an id is negative
// or above 2^32 - 1.
TokenTable read_token_table(const std::filesystem::path& path);
// As I64; the file appears whole or not at all.
void write_token_table(const std::filesystem::path& path,
                       const TokenTable& table);

// Any tensors, made one after another, with strings for the file as a whole
// (TensorReader::metadata()). The file appears whole or not at all.
void write_hdf5_tensors(const std::filesystem::path& path,
                        const std::map<std::string, std::string>& metadata,
                        std::size_t count,
                        const std::function<NamedTensor(std::size_t)>& make);

std::map<std::string, InputStats> read_statistics(
    const std::filesystem::path& path);
void write_statistics(const std::filesystem::path& path,
                      const std::map<std::string, InputStats>& statistics);

}  // namespace llmpress
