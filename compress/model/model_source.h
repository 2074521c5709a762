// A model as a command names it: checkpoint, architecture, tokenizer, checked
// against each other before hours of work.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compress/model/architecture.h"
#include "compress/model/decoder.h"
#include "compress/model/model_check.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/templates/chat_template.h"
#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

struct ModelSource {
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Architecture> arch;
  std::unique_ptr<Tokenizer> tokenizer;
};

// Whether a family, or a wrapper of one, has the model_type of config.json.
bool has_known_architecture(const Checkpoint& checkpoint);

// Throws Error(kIo) if there is nothing at `path`, kInvalidInput if tensors are
// missing or the tokenizer does not fit the embedding; check_model() looks at
// `packed` Linears. Without a tokenizer the model can be used on token ids; texts
// are refused when one is to be read.
ModelSource open_model(const std::filesystem::path& path,
                       PackedLinears packed = PackedLinears::kRead);
ModelSource open_model(std::unique_ptr<Checkpoint> checkpoint,
                       PackedLinears packed = PackedLinears::kRead);

// The tokenizer of a model folder, or the one that an .h5 file carries.
std::unique_ptr<Tokenizer> load_model_tokenizer(
    const std::filesystem::path& path);

// The chat template of a model, empty if it has none (chat_template.h).
std::optional<ChatTemplate> load_chat_template(
    const std::filesystem::path& path);

// The ids that end a text, as transformers finds them: generation_config.json's
// eos_token_id, else config.json's; the tokenizer's if neither says one.
std::vector<TokenId> stop_tokens(const ModelSource& source,
                                 const std::filesystem::path& path);

}  // namespace llmpress
