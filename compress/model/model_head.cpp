#include "compress/model/model_head.h"

#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {

const std::string& head_name(const Architecture& arch) {
  return arch.tied_head ? arch.embedding : arch.head;
}

LinearWeights read_head(const Checkpoint& checkpoint,
                        const Architecture& arch) {
  const std::string& head = head_name(arch);
  if (!checkpoint.has_linear(head)) {
    fail(ErrorCode::kInvalidInput,
         "{}: {}; config.json says that the head is not tied to the embedding "
         "(tie_word_embeddings)",
         checkpoint.path(), checkpoint.describe_absence(head));
  }
  LinearWeights weights = checkpoint.read_linear(head);
  if (arch.head_bias) {
    weights.bias =
        read_vector(checkpoint.tensors(), arch.head + ".bias", arch.vocabulary);
  }
  return weights;
}

}  // namespace llmpress
