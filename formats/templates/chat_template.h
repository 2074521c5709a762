// Chat templates: how a conversation is written as one text for a model that was
// trained on it, as a program in Jinja beside its tokenizer.
#pragma once

#include <cstddef>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

struct TemplateLimits {
  std::size_t most_steps = 20'000'000;  // see template_runtime.h
};

// `text`, a template named `name` in messages, over the members of `context`, an
// object in JSON. `now` is what strftime_now() tells. White space as Jinja's with
// trim_blocks and lstrip_blocks. Throws Error with line and column: kUnsupported
// for what this version lacks, kInvalidInput for a template that is none, that
// fails, or takes more than it may.
std::string render_template(std::string_view text, const std::string& name,
                            std::string_view context, const std::tm& now,
                            const TemplateLimits& limits = {});

struct ChatMessage {
  std::string role{};  // "system", "user", "assistant"
  std::string content{};
};

struct ChatTemplate {
  std::string text{};
  std::string name{};     // of the file it stands in
  std::string context{};  // in JSON: "bos_token" and the like
};

// Of a model's files, `origin` their folder in messages: chat_template.jinja,
// else chat_template.json, else the member chat_template of
// tokenizer_config.json; of several there the one named "default". Empty if
// there is none. Throws Error(kCorruptFile) for files that are no JSON.
std::optional<ChatTemplate> find_chat_template(const FileContents& content_of,
                                               const std::string& origin);

// What transformers' apply_chat_template() writes with add_generation_prompt:
// the conversation, and what makes the model answer.
std::string render_chat(const ChatTemplate& chat,
                        const std::vector<ChatMessage>& messages,
                        const std::tm& now);

}  // namespace llmpress
