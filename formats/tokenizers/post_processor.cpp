#include "formats/tokenizers/post_processor.h"

#include "formats/tokenizers/tokenizer_config.h"

namespace llmpress {
namespace {

TokenId special_id(const JsonView& processor, const JsonView& special) {
  const std::string& name = special.at("id").text();
  const auto ids = processor.at("special_tokens").at(name).at("ids").items();
  if (ids.size() != 1) special.unsupported("wanted one id for '" + name + "'");
  return static_cast<TokenId>(ids[0].natural(kLargestTokenId));
}

void read_template(const JsonView& processor, PostProcessor& out) {
  out.known = true;
  for (const JsonView& item : processor.at("single").items()) {
    if (item.find("Sequence")) break;
    if (out.first) item.unsupported("more than one token before the text");
    out.first = special_id(processor, item.at("SpecialToken"));
  }
}

// "cls": ["[CLS]", 101]
void read_class_token(const JsonView& processor, PostProcessor& out) {
  const JsonView token = processor.at("cls");
  const auto pair = token.items();
  if (pair.size() != 2) token.corrupt("wanted a token and its id");
  if (out.first) token.unsupported("more than one token before the text");
  out.known = true;
  out.first = static_cast<TokenId>(pair[1].natural(kLargestTokenId));
}

void read(const JsonView& processor, PostProcessor& out) {
  const JsonView type = processor.at("type");
  if (type.text() == "Sequence") {
    for (const JsonView& step : processor.at("processors").items()) {
      read(step, out);
    }
  } else if (type.text() == "TemplateProcessing") {
    read_template(processor, out);
  } else if (type.text() == "BertProcessing" ||
             type.text() == "RobertaProcessing") {
    read_class_token(processor, out);
  } else if (type.text() != "ByteLevel") {  // which changes offsets only
    type.unsupported("post-processor '" + type.text() +
                     "' is not known (known: Sequence, ByteLevel, "
                     "TemplateProcessing, BertProcessing, RobertaProcessing)");
  }
}

}  // namespace

PostProcessor read_post_processor(const JsonView& json) {
  PostProcessor out;
  read(json, out);
  return out;
}

}  // namespace llmpress
