#include "compress/pipeline/conversion/conversion_check.h"

#include "compress/core/formatted.h"
#include "compress/model/block_weights.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/conversion/packed_forms.h"

namespace llmpress {
namespace {

bool same_norm(const NormOptions& a, const NormOptions& b) {
  return a.kind == b.kind && a.epsilon == b.epsilon && a.bias == b.bias &&
         a.offset == b.offset;
}

// Formats have numbers of config.json in float32.
bool same_number(double a, double b) {
  return static_cast<float>(a) == static_cast<float>(b);
}

// Llama 3's scaling is stored as the divisors that follow from it.
bool same_rope(const RopeConfig& found, const RopeConfig& wanted) {
  if (wanted.scaling == RopeScaling::kLlama3 &&
      found.scaling == RopeScaling::kLongRope) {
    return found.dim == wanted.dim && same_number(found.theta, wanted.theta);
  }
  return found.dim == wanted.dim && found.scaling == wanted.scaling &&
         same_number(found.theta, wanted.theta) &&
         same_number(found.factor, wanted.factor) &&
         same_number(found.attention_factor, wanted.attention_factor);
}

bool same_model(const Architecture& found, const Architecture& wanted) {
  bool same = found.layers == wanted.layers && found.hidden == wanted.hidden &&
              found.vocabulary == wanted.vocabulary &&
              found.tied_head == wanted.tied_head &&
              found.embedding_scale == wanted.embedding_scale &&
              found.logit_scale == wanted.logit_scale &&
              found.logit_softcap == wanted.logit_softcap &&
              same_norm(found.final_norm_options, wanted.final_norm_options) &&
              found.ropes.size() == wanted.ropes.size();
  for (std::size_t l = 0; same && l < wanted.layers; ++l) {
    same = same_program(found.block(l), wanted.block(l));
  }
  for (std::size_t r = 0; same && r < wanted.ropes.size(); ++r) {
    same = same_rope(found.ropes[r], wanted.ropes[r]);
  }
  return same;
}

void check_weight(const PackedWeight& found, const PackedWeight& wanted,
                  const std::string& name, const std::filesystem::path& where,
                  ThreadPool& pool, double bound = 0) {
  if (rows_of(found) == rows_of(wanted) && cols_of(found) == cols_of(wanted) &&
      relative_difference(found, wanted, pool) <= bound) {
    return;
  }
  fail(ErrorCode::kCorruptFile,
       "{}: Linear '{}' does not read back as it was written", where, name);
}

}  // namespace

void check_conversion(const Checkpoint& source, const Architecture& arch,
                      const std::filesystem::path& written,
                      const std::set<std::string>& exact, ThreadPool& pool) {
  const auto checkpoint = open_checkpoint(written);
  const Architecture found = read_architecture(*checkpoint);
  if (!same_model(found, arch)) {
    fail(ErrorCode::kUnsupported,
         "{}: {} cannot say all that config.json says of this model",
         source.path(), checkpoint->format());
  }
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
      const std::string name = arch.linear_name(layer, l);
      if (!exact.contains(name)) continue;
      check_weight(read_block_linear(*checkpoint, found, layer, l).weight,
                   read_block_linear(source, arch, layer, l).weight, name,
                   written, pool);
    }
  }
  // GGUF has some embeddings times a factor: rounded by it, and back, to f32.
  const double bound = checkpoint->format() == "gguf" ? 0x1p-23 : 0;
  for (const auto& [ours, theirs] :
       {std::pair(&arch.embedding, &found.embedding),
        std::pair(&arch.head, &found.head)}) {
    if (!exact.contains(*ours)) continue;
    check_weight(checkpoint->read_linear(*theirs).weight,
                 source.read_linear(*ours).weight, *ours, written, pool, bound);
  }
}

}  // namespace llmpress
