// The post_processor of tokenizer.json: what stands before a text. Known:
// Sequence, ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing.
#pragma once

#include <optional>

#include "formats/files/json_reader.h"
#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

struct PostProcessor {
  bool known = false;              // whether it says what stands before a text
  std::optional<TokenId> first{};  // the one token that does
};

// Throws Error(kUnsupported) naming the place of an unknown type, and where more
// than one token stands before a text. What comes after it is not read.
PostProcessor read_post_processor(const JsonView& json);

}  // namespace llmpress
