// For compare_templates.py: render_template CASES.json, an array of objects with
// a "template" and its "context"; prints an array of {"text": ...} or
// {"error": ...}. The time is 2024-07-26 12:30:00.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/templates/chat_template.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::tm now{};
  now.tm_year = 124;
  now.tm_mon = 6;
  now.tm_mday = 26;
  now.tm_hour = 12;
  now.tm_min = 30;
  now.tm_wday = 5;
  now.tm_yday = 207;
  using Json = nlohmann::ordered_json;
  auto out = Json::array();
  for (const Json& item : Json::parse(llmpress::read_file(argv[1]))) {
    try {
      out.push_back({{"text", llmpress::render_template(
                                  item["template"].get<std::string>(),
                                  "template", item["context"].dump(), now)}});
    } catch (const llmpress::Error& error) {
      out.push_back({{"error", error.what()}});
    }
  }
  std::puts(out.dump().c_str());
}
