// A model in a GGUF file as the Hugging Face folder that it was made from:
// config.json from the metadata, tensors under their names there. Plain numbers
// are given as the folder has them (rows of heads in its order, norms without
// the 1 that GGUF adds, weights transposed where its class has them so); a
// tensor of blocks is U8 octets under its name, which read_linear() of the
// checkpoint takes apart: rows [begin, ...) of whole blocks move as they are.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/packed_weight.h"
#include "formats/containers/gguf.h"
#include "formats/containers/tensor_io.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_change.h"
#include "formats/gguf/gguf_joined.h"

namespace llmpress {

// A tensor of the folder and where it lies.
struct GgufView {
  TensorInfo info{};       // as the folder has it; U8 octets for blocks
  std::size_t tensor = 0;  // index in GgufFile::tensors()
  std::size_t rows = 0, columns = 0;  // of the matrix (rows 1: a vector)
  std::size_t first_row = 0;          // in the tensor
  GgufChange change = GgufChange::kNone;
  bool vector = false;  // one, or one of a stack
  bool blocks = false;
  std::vector<GgufPiece> pieces{};  // instead of all that
};

class GgufModel : public TensorReader {
 public:
  // Throws Error(kUnsupported) for an architecture or a tensor that this
  // version does not know.
  explicit GgufModel(GgufFile file);

  const GgufFile& file() const { return file_; }
  const GgufArchitecture& architecture() const { return *architecture_; }
  const std::string& config_json() const { return config_json_; }

  std::span<const TensorInfo> tensors() const override { return infos_; }
  TensorBytes read(const TensorInfo& info) const override;
  const std::map<std::string, std::string>& metadata() const override {
    return strings_;
  }
  // The weight at this module path if it is stored in blocks.
  const GgufView* find_blocks(std::string_view module) const;
  GgmlWeight read_blocks(const GgufView& view) const;

 private:
  void add_views(std::size_t tensor);
  void add_view(GgufView view, std::string name);
  void check_shape(const GgufTensor& tensor, std::size_t wanted,
                   bool exactly) const;

  GgufFile file_;
  const GgufArchitecture* architecture_ = nullptr;
  std::string config_json_{};
  GgufRowSizes sizes_{};
  std::vector<GgufView> views_{};  // by name
  std::map<std::string, std::vector<GgufPiece>> pieces_{};
  std::vector<TensorInfo> infos_{};
  std::map<std::string, std::string> strings_{};
};

// config.json of the model.
std::string gguf_config_json(const GgufFile& file,
                             const GgufArchitecture& architecture);

}  // namespace llmpress
