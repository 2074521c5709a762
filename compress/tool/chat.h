// A conversation with a model, as `generate --chat` holds it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "compress/model/model_source.h"

namespace llmpress {

class Chat {
 public:
  // Throws Error(kInvalidInput) if the model has no chat template.
  Chat(const std::filesystem::path& model, const Tokenizer& tokenizer);

  void add(const std::string& role, const std::string& content);
  // Ids of the conversation so far and of what makes the model answer. Special
  // tokens that the template writes are such; no BOS is added to its own.
  std::vector<TokenId> prompt() const;
  // The token that ends a turn: the first that the template writes behind an
  // answer, if it is spelled <...> or [...]; empty if it cannot be told.
  std::optional<TokenId> turn_end() const;

 private:
  const Tokenizer& tokenizer_;
  ChatTemplate template_{};
  std::vector<ChatMessage> messages_{};
};

}  // namespace llmpress
