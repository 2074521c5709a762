// tie_word_embeddings against what is stored, as transformers 5 takes it: two
// tensors that differ are not tied, and of a tied pair either may be stored.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/containers/tensor_io.h"

namespace llmpress {

// Whether two tensors of one shape, of plain numbers or of one dtype, hold the
// same values, whatever the width that they are stored in: what makes a head
// that stands beside its embedding tied.
bool same_values(const TensorReader& reader, const TensorInfo& a,
                 const TensorInfo& b);

// If config.json ties the head to the embedding (or does not say) and both are
// stored with different values, `config_json` gets "tie_word_embeddings":
// false. If it ties them and only the head is stored, `reader` gives the head's
// tensors under the embedding's name. Both leave a sentence in `notes`. Throws
// Error(kUnsupported) if they are stored in different forms, of which no loader
// says which one counts. `where` stands in front of messages.
void resolve_tied_head(std::unique_ptr<TensorReader>& reader,
                       std::string& config_json,
                       std::vector<std::string>& notes,
                       const std::string& where);

}  // namespace llmpress
