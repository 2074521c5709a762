#include "formats/templates/chat_template.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/files/json_reader.h"
#include "formats/templates/template_evaluator.h"
#include "formats/templates/template_parser.h"

namespace llmpress {
namespace {

using Json = nlohmann::ordered_json;

TemplateValue value_of(const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return TemplateValue::of(json.get<bool>());
    case Json::value_t::number_integer:
      return TemplateValue::of(json.get<std::int64_t>());
    case Json::value_t::number_unsigned:
      if (json.get<std::uint64_t>() >
          std::numeric_limits<std::int64_t>::max()) {
        throw TemplateFault("a number is too large");
      }
      return TemplateValue::of(json.get<std::int64_t>());
    case Json::value_t::number_float:
      return TemplateValue::of(json.get<double>());
    case Json::value_t::string:
      return TemplateValue::of(json.get<std::string>());
    case Json::value_t::array: {
      std::vector<TemplateValue> items;
      for (const Json& item : json) items.push_back(value_of(item));
      return TemplateValue::of(std::move(items));
    }
    case Json::value_t::object: {
      TemplateDict dict;
      for (const auto& [key, member] : json.items()) {
        dict.set(key, value_of(member));
      }
      return TemplateValue::of(std::move(dict));
    }
    case Json::value_t::null:
    case Json::value_t::binary:
    case Json::value_t::discarded:
      break;
  }
  return TemplateValue::none();
}

// JsonDocument bounds what nlohmann's parser may recurse into, and names errors.
Json parsed(std::string_view text, const std::string& origin) {
  const JsonDocument checked(text, origin);
  return Json::parse(text);
}

std::string in_folder(const std::string& folder, const char* name) {
  return folder.empty() ? name : folder + "/" + name;
}

// "<s>", or {"content": "<s>", ...}.
void read_tokens(const Json& json, Json& context) {
  for (const auto& [key, value] : json.items()) {
    if (!key.ends_with("_token")) continue;
    if (value.is_string()) context[key] = value;
    if (value.is_object() && value.contains("content") &&
        value["content"].is_string()) {
      context[key] = value["content"];
    }
  }
}

std::string default_template(const Json& json, const std::string& origin) {
  if (!json.contains("chat_template")) return {};
  const Json& chat = json["chat_template"];
  if (chat.is_string()) return chat.get<std::string>();
  if (chat.is_null()) return {};
  if (chat.is_array()) {
    for (const Json& entry : chat) {
      if (!entry.is_object() || entry.value("name", Json()) != "default") {
        continue;
      }
      if (entry.contains("template") && entry["template"].is_string()) {
        return entry["template"].get<std::string>();
      }
    }
  }
  fail(ErrorCode::kCorruptFile,
       "{}: chat_template: wanted a string, or a list with one named 'default'",
       origin);
}

}  // namespace

std::string render_template(std::string_view text, const std::string& name,
                            std::string_view context, const std::tm& now,
                            const TemplateLimits& limits) {
  const TemplateSource source(text, name);
  const TemplateBody body = parse_template(source);
  try {
    const TemplateValue values = value_of(parsed(context, name + " (values)"));
    TemplateRuntime runtime(now, limits.most_steps);
    return TemplateEvaluator(source, runtime).render(body, *values.dict());
  } catch (const TemplateFault& fault) {  // of the values themselves
    fail(ErrorCode::kInvalidInput, "{}: {}", name, fault.what());
  }
}

std::optional<ChatTemplate> find_chat_template(const FileContents& content_of,
                                               const std::string& origin) {
  ChatTemplate chat;
  Json context = Json::object();
  const auto read = [&](const char* name) {
    const std::string text = content_of(name);
    return text.empty() ? Json::object()
                        : parsed(text, in_folder(origin, name));
  };
  read_tokens(read("special_tokens_map.json"), context);
  const Json config = read("tokenizer_config.json");
  read_tokens(config, context);
  chat.context = context.dump();
  chat.name = in_folder(origin, "chat_template.jinja");
  chat.text = content_of("chat_template.jinja");
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    if (!chat.text.empty()) break;
    chat.name = in_folder(origin, name);
    chat.text = default_template(read(name), chat.name);
  }
  if (chat.text.empty()) return std::nullopt;
  return chat;
}

std::string render_chat(const ChatTemplate& chat,
                        const std::vector<ChatMessage>& messages,
                        const std::tm& now) {
  Json context = Json::parse(chat.context);
  context["messages"] = Json::array();
  for (const auto& [role, content] : messages) {
    context["messages"].push_back({{"role", role}, {"content", content}});
  }
  context["tools"] = nullptr;
  context["documents"] = nullptr;
  context["add_generation_prompt"] = true;
  return render_template(
      chat.text, chat.name,
      context.dump(-1, ' ', false, Json::error_handler_t::replace), now);
}

}  // namespace llmpress
