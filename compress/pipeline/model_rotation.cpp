#include "compress/pipeline/model_rotation.h"

#include <algorithm>
#include <memory>
#include <span>

#include "compress/core/error.h"
#include "compress/core/hadamard.h"
#include "quantizers/rotation.h"

namespace llmpress {
namespace {

// What every edit of the model needs.
struct Rotations {
  Rotation stream{};  // of the residual stream
  Rotation value{};   // of each value head
  Rotation inner{};   // of the MLP's inner vector, online
  bool online = false;
  ThreadPool* pool = nullptr;

  void rotate_bias(std::vector<float>& bias, const Rotation& rotation) const {
    if (bias.empty()) return;
    rotate_vectors_in_place({bias, 1, bias.size()}, rotation, *pool);
  }

  // W reads the stream behind a norm.
  void read_stream(MatrixF& W, std::span<const float> gain) const {
    fold_gain_in_place(W.view(), gain);
    rotate_input_in_place(W.view(), stream, *pool);
  }

  void write_stream(MatrixF& W, std::vector<float>& bias) const {
    rotate_output_in_place(W.view(), stream, *pool);
    rotate_bias(bias, stream);
  }

  void write_values(MatrixF& W, std::vector<float>& bias) const {
    rotate_output_in_place(W.view(), value, *pool);
    rotate_bias(bias, value);
  }

  void attention_output(MatrixF& W, LinearWeights& linear) const {
    rotate_input_in_place(W.view(), value, *pool);
    write_stream(W, linear.bias);
  }

  void mlp_output(MatrixF& W, LinearWeights& linear) const {
    if (online) {
      rotate_input_in_place(W.view(), inner, *pool);
      linear.input_hadamard = inner.block;
    }
    write_stream(W, linear.bias);
  }
};

class ModelRotator {
 public:
  ModelRotator(const Checkpoint& checkpoint, const Architecture& arch,
               const RotateStage& stage, ThreadPool& pool)
      : checkpoint_(checkpoint),
        arch_(arch),
        stage_(stage),
        rotations_(std::make_shared<const Rotations>(
            Rotations{.stream = random_rotation(arch.hidden, stage.seed),
                      .value = {.block = largest_hadamard_block(arch.head_dim)},
                      .inner = {.block = largest_hadamard_block(arch.ffn)},
                      .online = stage.online,
                      .pool = &pool})) {}

  RotationPlan plan() {
    check();
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      for (const StageSpec& stage : arch_.block.stages) {
        for (const std::size_t l : stage.linears) {
          edit_linear(layer, stage.kind, l);
        }
      }
      set_to_one(arch_.block_name(layer) + "." + arch_.block.attention_norm);
      set_to_one(arch_.block_name(layer) + "." + arch_.block.mlp_norm);
    }
    edit_ends();
    note_blocks("hidden size", arch_.hidden, rotations_->stream.block);
    note_blocks("head size", arch_.head_dim, rotations_->value.block);
    if (stage_.online) {
      note_blocks("MLP width", arch_.ffn, rotations_->inner.block);
    }
    return std::move(plan_);
  }

 private:
  void check() const {
    if (arch_.norm == NormKind::kRms) return;
    throw Error(ErrorCode::kUnsupported,
                stage_.position.to_string() +
                    ": rotate knows models with RMS norms only");
  }

  std::vector<float> gain(const std::string& norm) const {
    return read_vector(checkpoint_.tensors(), norm + ".weight", arch_.hidden);
  }

  void set_to_one(const std::string& norm) {
    plan_.edits.tensors[norm + ".weight"] = [](MatrixF& values) {
      std::ranges::fill(values.data(), 1.0f);
    };
  }

  void edit_linear(std::size_t layer, StageKind kind, std::size_t l) {
    const std::string block = arch_.block_name(layer) + ".";
    auto& edit = plan_.edits.linears[arch_.linear_name(layer, l)];
    const auto r = rotations_;
    switch (kind) {
      case StageKind::kAttentionInput: {
        const bool value = arch_.block.linears[l].name.ends_with("v_proj");
        edit = [r, value, g = gain(block + arch_.block.attention_norm)](
                   MatrixF& W, LinearWeights& linear) {
          r->read_stream(W, g);
          if (value) r->write_values(W, linear.bias);
        };
        return;
      }
      case StageKind::kMlpInput:
        edit = [r, g = gain(block + arch_.block.mlp_norm)](
                   MatrixF& W, LinearWeights&) { r->read_stream(W, g); };
        return;
      case StageKind::kAttentionOutput:
        edit = [r](MatrixF& W, LinearWeights& linear) {
          r->attention_output(W, linear);
        };
        return;
      case StageKind::kMlpOutput:
        edit = [r](MatrixF& W, LinearWeights& linear) {
          r->mlp_output(W, linear);
        };
        return;
    }
  }

  // Embedding rows are written to the stream; the head reads it behind the
  // final norm.
  void edit_ends() {
    const std::string embedding = arch_.embedding + ".weight";
    const auto r = rotations_;
    plan_.edits.tensors[embedding] = [r](MatrixF& rows) {
      rotate_vectors_in_place(rows.view(), r->stream, *r->pool);
    };
    const std::vector<float> g = gain(arch_.final_norm);
    set_to_one(arch_.final_norm);
    if (!arch_.tied_head) {
      plan_.edits.linears[arch_.head] = [r, g](MatrixF& W, LinearWeights&) {
        r->read_stream(W, g);
      };
      return;
    }
    const TensorReader& tensors = checkpoint_.tensors();
    plan_.edits.added_linears[arch_.head] = {
        .dtype = tensors.require(embedding).dtype,
        .out = arch_.vocabulary,
        .in = arch_.hidden,
        .make = [r, g, embedding, &tensors] {
          MatrixF W = read_matrix(tensors, embedding);
          r->read_stream(W, g);
          return W;
        }};
    plan_.edits.config_json =
        with_flag(checkpoint_.config_json(), "tie_word_embeddings", false);
    plan_.notes.push_back(
        "rotate: the head is no longer tied to the embedding");
  }

  void note_blocks(const std::string& what, std::size_t size,
                   std::size_t block) {
    if (block == size) return;
    plan_.notes.push_back("rotate: no Hadamard matrix of the " + what + " " +
                          std::to_string(size) + " is known; blocks of " +
                          std::to_string(block) + " are used");
  }

  const Checkpoint& checkpoint_;
  const Architecture& arch_;
  const RotateStage& stage_;
  std::shared_ptr<const Rotations> rotations_;
  RotationPlan plan_;
};

}  // namespace

RotationPlan rotate_model(const Checkpoint& checkpoint,
                          const Architecture& arch, const RotateStage& stage,
                          ThreadPool& pool) {
  return ModelRotator(checkpoint, arch, stage, pool).plan();
}

}  // namespace llmpress
