// How the models of a GGUF file are called here: one row of a table an
// architecture, with its tensors, its keys and what these cannot say. A model
// in GGUF is read as the Hugging Face folder that it was made from: config.json
// from the metadata, tensors under their names there (gguf_model.h), and it is
// written by the same rows the other way.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoints/config_reader.h"
#include "formats/containers/gguf.h"

namespace llmpress {

// What else differs between a tensor in GGUF and the same in Hugging Face's
// folder.
enum class GgufChange {
  kNone,
  // Rows of a head: coordinates that turn together lie side by side in GGUF and
  // half a head apart in the folder, or half of what turns.
  kQueryRows,
  kKeyRows,
  // Rows of each key's queries, the key and its value; in GGUF all queries, all
  // keys, all values.
  kGroupedHeads,
  kPlusOne,  // a norm's gain, in GGUF with the 1 that its class adds
  // A norm's gain, in GGUF times a factor of the logits; the same, times that of
  // an MLP's gate; an embedding, times its factor (gguf_multipliers.h).
  kTimes,
  kGateTimes,
  kEmbeddingTimes,
  kMinusExp,        // a logarithm; in GGUF what it is of, below 0
  kMinusExpColumn,  // the same, [n] in the folder and [n, 1] in GGUF
  kColumn,          // [n] in the folder, [n, 1] in GGUF
  kAsF32,           // a matrix that GGUF has in F32, as it has vectors
  kTransposed,      // the weight, [in, out] in the folder
  // Gated DeltaNet's heads of values: in the folder those of a key together, in
  // GGUF the first of each key, the second, ... Rows; the same behind queries and
  // keys; the same of a convolution; and of a logarithm; columns.
  kTiledRows,
  kTiledInputs,
  kTiledTaps,
  kTiledMinusExp,
  kTiledColumns,
  kOneRow,     // a matrix of one row, in GGUF a vector
  kTaps,       // a convolution, [channels, 1, taps] in the folder
  kTapsTimes,  // the same, in GGUF times the factors of its inputs
  kGroups,     // [n] in the folder, [groups, n / groups] in GGUF
  // Parts of one matrix of the folder (gguf_parts.h): rows above and below;
  // of each head's keys and values the former, transposed, and the latter; of
  // Gated DeltaNet's queries, keys, values and gates the first three, and these.
  kUpperHalf,
  kLowerHalf,
  kLatentKeys,
  kLatentValues,
  kDeltaInputs,
  kDeltaGates,
};

// Modules, without ".weight" or ".bias"; or, where `whole`, tensors' names. "{}"
// is the number of the block; "{e}" that of an expert, whose matrices are one
// tensor in GGUF.
struct GgufTensorName {
  std::string_view gguf, ours;
  GgufChange change = GgufChange::kNone;
  bool whole = false;
  // Reading, where several rows have the name: the row is meant in blocks that
  // have this tensor; empty: in all.
  std::string_view beside{};
};

// A number of the metadata ("<architecture>.<gguf>") and of config.json.
struct GgufKey {
  std::string_view gguf, ours;
  bool real = false;
  std::optional<double> absent{};  // what its class takes without the key
};

// config.json by key; values as JSON text.
using JsonFields = std::map<std::string, std::string>;

// What stands in metadata and tensors beside the rows.
struct GgufReading {
  const GgufFile& file;
  std::string_view architecture;
  std::string key(std::string_view name) const;  // "llama.block_count"
  std::optional<std::size_t> size(std::string_view name) const;
  std::size_t require_size(std::string_view name) const;
  std::optional<double> number(std::string_view name) const;
  std::optional<bool> flag(std::string_view name) const;
  std::vector<float> vector(std::string_view tensor) const;
  bool has(std::string_view tensor) const;
};

struct GgufWriting {
  const ConfigReader& config;
  std::string_view architecture;
  GgufMetadata& metadata;
  std::vector<std::pair<std::string, std::vector<float>>>& extra_tensors;
  void size(std::string_view name, std::size_t value) const;
  void number(std::string_view name, double value) const;
  void flag(std::string_view name, bool value) const;
};

struct GgufArchitecture {
  std::string_view name;        // general.architecture
  std::string_view model_type;  // of config.json
  std::span<const GgufTensorName> tensors{};
  std::span<const GgufKey> keys{};
  void (*read)(const GgufReading&, JsonFields&) = nullptr;
  void (*write)(const GgufWriting&) = nullptr;
  // Of several rows with the name, or for the model_type, the first that fits;
  // absent: always.
  bool (*fits)(const GgufReading&) = nullptr;
  bool (*written)(const ConfigReader&) = nullptr;
  std::optional<std::size_t> head_dim{};  // of config.json without head_dim
  double rope_theta = 10000;              // without rope_theta
  bool tied = false;                      // without tie_word_embeddings
  bool scales = false;          // read() looks at the Linears' "NAME.scale"
  std::string_view hf_class{};  // "LlamaForCausalLM"
};

std::span<const GgufArchitecture> gguf_architectures();
// Those of gguf_wider_architectures.cpp, gguf_dense_rows.cpp, ..., which are
// among them.
std::span<const GgufArchitecture> wider_gguf_architectures();
std::span<const GgufArchitecture> dense_gguf_architectures();
std::span<const GgufArchitecture> newer_dense_gguf_architectures();
std::span<const GgufArchitecture> fused_gguf_architectures();
std::span<const GgufArchitecture> expert_gguf_architectures();
std::span<const GgufArchitecture> latent_gguf_architectures();
std::span<const GgufArchitecture> sigmoid_gguf_architectures();
std::span<const GgufArchitecture> delta_gguf_architectures();
std::span<const GgufArchitecture> recurrent_gguf_architectures();
std::span<const GgufArchitecture> hybrid_gguf_architectures();
std::span<const GgufArchitecture> single_gguf_architectures();
std::span<const GgufArchitecture> parallel_gguf_architectures();
std::span<const GgufArchitecture> vision_gguf_architectures();
std::span<const GgufArchitecture> gemma4_gguf_architectures();
std::span<const GgufArchitecture> lightning_gguf_architectures();
// Throw Error(kUnsupported) naming those that there are. Where several rows
// have the name, `reading` tells them apart.
const GgufArchitecture& gguf_architecture_of(const GgufReading& reading);
const GgufArchitecture& gguf_architecture_for(const ConfigReader& config);

// "{}" replaced.
std::string with_number(std::string_view pattern, std::size_t number);

}  // namespace llmpress
