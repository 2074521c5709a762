// A model on disk: its configuration, its tensors, and its Linears as packed
// weights, whatever format they are stored in.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/packed/row_source.h"
#include "compress/core/packed_weight.h"
#include "formats/containers/tensor_io.h"
#include "formats/linears/kv_scheme.h"
#include "formats/linears/linear_part.h"
#include "formats/linears/quantization_config.h"

namespace llmpress {

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  virtual const std::filesystem::path& path() const = 0;
  virtual const TensorReader& tensors() const = 0;
  // config.json as text (an HDF5 file carries it in an attribute).
  virtual const std::string& config_json() const = 0;
  // "huggingface", "compressed-tensors", "hdf5", "consolidated", "llama2.c"...
  virtual std::string_view format() const = 0;

  // The Linear at module path `name`, e.g. "model.layers.0.self_attn.q_proj";
  // its bias when it has one. Dense weights keep their dtype. Throws
  // Error(kInvalidInput) if missing or not finite, kCorruptFile/kUnsupported if
  // the stored form is broken or unknown.
  virtual LinearWeights read_linear(std::string_view name) const = 0;
  virtual bool has_linear(std::string_view name) const = 0;
  // The same without a copy of the weight where it lies there as plain numbers;
  // one that is not finite is then refused when its row is read. Must not be
  // used after the checkpoint is gone.
  virtual LinearRows read_linear_rows(std::string_view name) const;
  // Some of its rows, if it can be, without reading the others (linear_part.h).
  virtual LinearPart read_linear_part(std::string_view name,
                                      const RowChoice& choice) const;
  // The tensor `<name>.weight` if its numbers are the weights: a matrix of F64,
  // F32, F16 or BF16 with neither scales nor codes beside it that would change
  // what they mean. Else nullptr. Whoever reads a Linear's tensor by its name
  // asks here first.
  virtual const TensorInfo* plain_weight(std::string_view name) const = 0;
  // What quantization_config says of a Linear that is stored as llmpress writes
  // it in compressed-tensors: its tensors are all that begin with "<name>.".
  virtual std::optional<DescribedLinear> describe_linear(
      std::string_view) const {
    return std::nullopt;
  }
  // Of a Linear that has_linear() denies: "'<name>.weight' is missing", or what
  // lies there instead.
  virtual std::string describe_absence(std::string_view name) const;
  // How the attention of the block at this path rounds keys and values, if it
  // does.
  virtual std::optional<KvScheme> kv_scheme(std::string_view) const {
    return std::nullopt;
  }
  // Sentences about what the files say twice and differently, and which counts.
  virtual std::vector<std::string> notes() const { return {}; }
};

// A Hugging Face directory (its weights in safetensors or, without them, as
// torch.save writes them), an artifact of ours (also a directory), a directory
// with params.json and consolidated weights, a GGUF file (or the folder that it
// is alone in), a checkpoint of llama2.c, or an .h5 file. A head and an embedding of which config.json says that they are one are
// given as they are stored: with tie_word_embeddings false if both are there
// and differ, as the embedding if only the head is. Throws Error(kIo) if it is
// not there, kInvalidInput if config.json is, kUnsupported for a quant_method
// that is not read.
std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& path);

}  // namespace llmpress
