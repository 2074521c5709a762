// Importance matrices of llama.cpp: for each matrix of a model the sums of
// squares of its inputs over a text, by the names of GGUF. Two forms:
//
//   GGUF     general.type "imatrix"; for each matrix NAME two tensors of f32,
//            "NAME.in_sum2" [matrices, in] and "NAME.counts" [matrices, 1], the
//            tokens that were counted, of each expert where NAME is a stack;
//            imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size
//   legacy   | i32 entries | of each: | i32 length | name | i32 calls |
//            i32 values | f32 sums |, then perhaps | i32 calls |
//            i32 length | name of the text |, little-endian. A sum is mean(x^2)
//            times `calls`, of experts one after another
//
// (llama.cpp, tools/imatrix, github.com/ggml-org/llama.cpp/pull/9400.)
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmpress {

struct ImatrixEntry {
  std::vector<float> sums{};    // [matrices, in]
  std::vector<float> counts{};  // [matrices], or one of them all

  bool operator==(const ImatrixEntry&) const = default;
};

struct Imatrix {
  std::map<std::string, ImatrixEntry> entries{};  // "blk.0.attn_q.weight"
  std::vector<std::string> datasets{};
  std::size_t chunks = 0, chunk_size = 0;  // sequences, tokens of one
};

enum class ImatrixForm { kGguf, kLegacy };

// Of either form. Throws Error(kCorruptFile) for sizes that pass the end,
// kInvalidInput for numbers that are no sums of squares or a GGUF file of
// something else; `where` stands in front of messages.
Imatrix parse_imatrix(std::span<const std::byte> file,
                      const std::string& where);
Imatrix read_imatrix(const std::filesystem::path& path);

// E[x^2] [in] of matrix `index` of an entry; 1 where no token was counted, as
// llama.cpp takes it. Throws Error(kInvalidInput) naming `name` if the entry is
// not of matrices of `in` columns.
std::vector<float> mean_squares(const ImatrixEntry& entry, std::size_t index,
                                std::size_t in, std::string_view name);

// By the file's name: ".gguf", or ".dat" for the legacy form. Throws
// Error(kInvalidArgument) for any other.
ImatrixForm imatrix_form_of(const std::filesystem::path& path);
// Marked as ours (is_our_imatrix()).
std::string imatrix_octets(const Imatrix& imatrix, ImatrixForm form);
bool is_our_imatrix(const std::filesystem::path& path);

}  // namespace llmpress
