#include "compress/tool/chat.h"

#include <ctime>
#include <utility>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  return parts;
}

bool is_marker(std::string_view text) {
  return text.size() >= 3 && ((text.front() == '<' && text.back() == '>') ||
                              (text.front() == '[' && text.back() == ']'));
}

}  // namespace

Chat::Chat(const std::filesystem::path& model, const Tokenizer& tokenizer)
    : tokenizer_(tokenizer) {
  auto found = load_chat_template(model);
  if (!found) {
    fail(ErrorCode::kInvalidInput,
         "{}: has no chat template (chat_template.jinja, or chat_template in "
         "tokenizer_config.json)",
         model);
  }
  template_ = std::move(*found);
}

void Chat::add(const std::string& role, const std::string& content) {
  messages_.push_back({role, content});
}

std::vector<TokenId> Chat::prompt() const {
  return tokenizer_.encode(render_chat(template_, messages_, local_time()));
}

std::optional<TokenId> Chat::turn_end() const {
  const std::string answer = "ANSWER";
  std::string text;
  try {
    text = render_chat(template_, {{"user", "x"}, {"assistant", answer}},
                       local_time());
  } catch (const Error&) {  // a template may want more than this
    return std::nullopt;
  }
  const std::size_t at = text.rfind(answer);
  if (at == std::string::npos) return std::nullopt;
  for (const TokenId id : tokenizer_.encode(text.substr(at + answer.size()))) {
    const std::string spelling = tokenizer_.decode(std::vector<TokenId>{id});
    if (is_marker(spelling)) return id;
    if (spelling.find_first_not_of(" \n") != std::string::npos) break;
  }
  return std::nullopt;
}

}  // namespace llmpress
