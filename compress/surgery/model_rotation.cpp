#include "compress/surgery/model_rotation.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/hadamard.h"
#include "compress/model/facts.h"
#include "compress/model/model_check.h"
#include "quantizers/rotation.h"

namespace llmpress {
namespace {

// What every edit of the model needs.
struct Rotations {
  Rotation stream{};  // of the residual stream
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
};

using LinearEdit = std::function<void(MatrixF&, LinearWeights&)>;

class ModelRotator {
 public:
  ModelRotator(const Checkpoint& checkpoint, const Architecture& arch,
               const RotateStage& stage, ThreadPool& pool)
      : checkpoint_(checkpoint),
        arch_(arch),
        stage_(stage),
        rotations_(std::make_shared<const Rotations>(
            Rotations{.stream = random_rotation(arch.hidden, stage.seed),
                      .online = stage.online,
                      .pool = &pool})) {}

  RotationPlan plan() {
    check();
    plan_.edits.arch = &arch_;
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      edit_block(layer);
    }
    edit_ends();
    note_blocks("hidden size", arch_.hidden, rotations_->stream.block);
    for (const auto& [what, sizes] : inner_sizes_) {
      for (const std::size_t size : sizes) {
        note_blocks(what, size, largest_hadamard_block(size));
      }
    }
    return std::move(plan_);
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorCode::kUnsupported, "{}: rotate: {}: {}",
         stage_.position.to_string(), arch_.model_type, why);
  }

  void check_stream(const BlockSpec& block) const {
    try {
      (void)stream_facts(block);
    } catch (const Error& e) {
      refuse(e.what());
    }
  }

  // Rotations leave the function alone where the stream meets RMS norms and
  // Linears only.
  void check() const {
    for (const BlockSpec& block : arch_.kinds) {
      check_stream(block);
      for (const Operation& op : block.operations) {
        const auto* norm = std::get_if<NormOp>(&op.kind);
        const bool of_stream = norm != nullptr && norm->unit == 0 &&
                               block.values[op.in[0]].axis == Axis::kHidden;
        if (of_stream && norm->kind != NormKind::kRms) {
          refuse("its norms are not RMS norms");
        }
      }
    }
    if (arch_.final_norm_options.kind != NormKind::kRms ||
        arch_.final_norm.empty() || !arch_.embedding_norm.empty() ||
        !arch_.position_embedding.empty() ||
        !arch_.embedding_projection.empty() || !arch_.head_projection.empty()) {
      refuse(
          "what stands around its blocks is not an embedding, an RMS norm "
          "and a head");
    }
  }

  // As it multiplies.
  std::vector<float> gain(const std::string& norm, float offset) const {
    std::vector<float> gain =
        read_vector(checkpoint_.tensors(), norm + ".weight", arch_.hidden);
    for (float& g : gain) g += offset;
    return gain;
  }

  void set_to_one(const std::string& norm, float offset) {
    plan_.edits.tensors[norm + ".weight"] = [offset](MatrixF& values) {
      std::ranges::fill(values.data(), 1.0f - offset);
    };
  }

  // Edits of one Linear follow one another.
  void add_edit(std::size_t layer, std::size_t linear, LinearEdit edit) {
    LinearEdit& all = plan_.edits.linears[arch_.linear_name(layer, linear)];
    if (!all) {
      all = std::move(edit);
      return;
    }
    all = [first = std::move(all), then = std::move(edit)](
              MatrixF& W, LinearWeights& weights) {
      first(W, weights);
      then(W, weights);
    };
  }

  void edit_block(std::size_t layer) {
    const BlockSpec& block = arch_.block(layer);
    const StreamFacts facts = stream_facts(block);
    const auto r = rotations_;
    for (const StreamReader& reader : facts.readers) {
      const NormSpec& norm = block.norms[reader.norm];
      const std::string name = arch_.block_name(layer) + "." + norm.name;
      for (const std::size_t l : reader.linears) {
        add_edit(layer, l,
                 [r, g = gain(name, norm.offset)](MatrixF& W, LinearWeights&) {
                   r->read_stream(W, g);
                 });
      }
      set_to_one(name, norm.offset);
    }
    for (const ValuePath& path : value_paths(block)) edit_values(layer, path);
    if (stage_.online) edit_inner(layer);
    for (const std::size_t l : facts.writers) {
      add_edit(layer, l, [r](MatrixF& W, LinearWeights& linear) {
        r->write_stream(W, linear.bias);
      });
    }
  }

  // Each value head is rotated where it is made and where it is read.
  void edit_values(std::size_t layer, const ValuePath& path) {
    const LinearSpec& v = arch_.block(layer).linears[path.v.linear];
    if (path.v.index.size() != v.out) return;  // a part of a fused Linear
    const Rotation value{.block = largest_hadamard_block(path.v.width)};
    inner_sizes_["head size"].insert(path.v.width);
    const auto r = rotations_;
    add_edit(layer, path.v.linear,
             [r, value](MatrixF& W, LinearWeights& linear) {
               rotate_output_in_place(W.view(), value, *r->pool);
               r->rotate_bias(linear.bias, value);
             });
    add_edit(layer, path.o.linear, [r, value](MatrixF& W, LinearWeights&) {
      rotate_input_in_place(W.view(), value, *r->pool);
    });
  }

  // The MLP's inner vector is rotated at inference.
  void edit_inner(std::size_t layer) {
    const BlockSpec& block = arch_.block(layer);
    const auto r = rotations_;
    for (const Operation& op : block.operations) {
      const auto* const linear = std::get_if<LinearOp>(&op.kind);
      if (linear == nullptr || block.values[op.in[0]].axis != Axis::kFfn) {
        continue;
      }
      const std::size_t width = block.values[op.in[0]].width;
      const Rotation inner{.block = largest_hadamard_block(width)};
      inner_sizes_["MLP width"].insert(width);
      for (const std::size_t l : linear->linears) {
        add_edit(layer, l, [r, inner](MatrixF& W, LinearWeights& weights) {
          if (weights.input_hadamard != 0) {
            throw Error(ErrorCode::kUnsupported,
                        "rotate: the model's MLPs are rotated at inference "
                        "already");
          }
          rotate_input_in_place(W.view(), inner, *r->pool);
          weights.input_hadamard = inner.block;
        });
      }
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
    const float offset = arch_.final_norm_options.offset;
    const std::vector<float> g = gain(arch_.final_norm, offset);
    set_to_one(arch_.final_norm, offset);
    if (!arch_.tied_head) {
      plan_.edits.linears[arch_.head] = [r, g](MatrixF& W, LinearWeights&) {
        r->read_stream(W, g);
      };
      return;
    }
    const TensorInfo* const plain = dense_matrix(checkpoint_, arch_.embedding);
    plan_.edits.added_linears[arch_.head] = {
        .dtype = plain != nullptr ? plain->dtype : DType::kF32,
        .out = arch_.vocabulary,
        .in = arch_.hidden,
        .make = [r, g, &checkpoint = checkpoint_, name = arch_.embedding] {
          MatrixF W = dequantize(checkpoint.read_linear(name).weight);
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
    plan_.notes.push_back(
        formatted("rotate: no Hadamard matrix of the {} {} is known; blocks of "
                  "{} are used",
                  what, size, block));
  }

  const Checkpoint& checkpoint_;
  const Architecture& arch_;
  const RotateStage& stage_;
  std::shared_ptr<const Rotations> rotations_;
  std::map<std::string, std::set<std::size_t>> inner_sizes_;
  RotationPlan plan_;
};

}  // namespace

RotationPlan rotate_model(const Checkpoint& checkpoint,
                          const Architecture& arch, const RotateStage& stage,
                          ThreadPool& pool) {
  return ModelRotator(checkpoint, arch, stage, pool).plan();
}

}  // namespace llmpress
