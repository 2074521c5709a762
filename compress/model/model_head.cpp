#include "compress/model/model_head.h"

#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {

const std::string& head_name(const Architecture& arch) {
  return arch.tied_head ? arch.embedding : arch.head;
}

namespace {

void require_head(const Checkpoint& checkpoint, const Architecture& arch) {
  const std::string& head = head_name(arch);
  if (checkpoint.has_linear(head)) return;
  fail(ErrorCode::kInvalidInput,
       "{}: {}; config.json says that the head is not tied to the embedding "
       "(tie_word_embeddings)",
       checkpoint.path(), checkpoint.describe_absence(head));
}

void add_bias(const Checkpoint& checkpoint, const Architecture& arch,
              LinearWeights& head) {
  if (!arch.head_bias) return;
  head.bias =
      read_vector(checkpoint.tensors(), arch.head + ".bias", arch.vocabulary);
}

}  // namespace

LinearWeights read_head(const Checkpoint& checkpoint,
                        const Architecture& arch) {
  require_head(checkpoint, arch);
  LinearWeights head = checkpoint.read_linear(head_name(arch));
  add_bias(checkpoint, arch, head);
  return head;
}

LinearPart read_head_part(const Checkpoint& checkpoint,
                          const Architecture& arch, const RowChoice& choice) {
  require_head(checkpoint, arch);
  LinearPart part = checkpoint.read_linear_part(head_name(arch), choice);
  add_bias(checkpoint, arch, part.linear);
  return part;
}

}  // namespace llmpress
