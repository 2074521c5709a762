#include "formats/tokenizers/text_documents.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

using Json = nlohmann::json;

struct Magic {
  std::string_view bytes, advice;
};
using namespace std::string_view_literals;
constexpr std::array<Magic, 13> kOtherKinds{{
    {"\x1F\x8B"sv, "gzip-compressed; unpack it first"},
    {"\x28\xB5\x2F\xFD"sv, "zstd-compressed; unpack it first"},
    {"\xFD\x37\x7A\x58\x5A\x00"sv, "xz-compressed; unpack it first"},
    {"BZh"sv, "bzip2-compressed; unpack it first"},
    {"\x04\x22\x4D\x18"sv, "lz4-compressed; unpack it first"},
    {"PK\x03\x04"sv, "a zip archive; unpack it first"},
    {"PAR1"sv, "a Parquet file; write its texts as JSON Lines first"},
    {"ARROW1"sv, "an Arrow file; write its texts as JSON Lines first"},
    {"%PDF-"sv, "a PDF; extract its text first"},
    {"\x89HDF\r\n\x1A\n"sv, "an HDF5 file"},
    {"\xFF\xFE"sv, "UTF-16; convert it to UTF-8"},
    {"\xFE\xFF"sv, "UTF-16; convert it to UTF-8"},
    {"\xEF\xBB\xBF"sv,
     "a text with a byte order mark, which would be tokenized as text; remove "
     "its first three bytes"},
}};

[[noreturn]] void invalid(const std::string& where, std::size_t line,
                          const std::string& what) {
  fail(ErrorCode::kInvalidInput, "{}:{}: {}", where, line, what);
}

std::size_t line_of(std::string_view content, std::size_t byte) {
  const auto end = content.begin() +
                   static_cast<std::ptrdiff_t>(std::min(byte, content.size()));
  return 1 + static_cast<std::size_t>(std::count(content.begin(), end, '\n'));
}

void check_text(std::string_view content, const std::string& where) {
  for (const auto& [bytes, advice] : kOtherKinds) {
    if (content.starts_with(bytes)) {
      fail(ErrorCode::kUnsupported, "{}: not plain text or JSON: it is {}",
           where, advice);
    }
  }
  const std::size_t nul = content.find('\0');
  const std::size_t bad = valid_utf8_length(content);
  if (nul < bad) {
    invalid(where, line_of(content, nul),
            formatted("byte {} is NUL; wanted text in UTF-8 (is this UTF-16, "
                      "or no text?)",
                      nul));
  }
  if (bad == content.size()) return;
  char shown[8];
  std::snprintf(
      shown, sizeof(shown), "0x%02X",
      static_cast<unsigned>(static_cast<unsigned char>(content[bad])));
  invalid(where, line_of(content, bad),
          formatted("byte {} ({}) is not UTF-8; convert the file if it is in "
                    "another encoding, such as Latin-1",
                    bad, shown));
}

bool is_named_json(std::string_view where) {
  std::string end(
      where.substr(where.size() - std::min<std::size_t>(where.size(), 7)));
  for (char& c : end) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return end.ends_with(".json") || end.ends_with(".jsonl") ||
         end.ends_with(".ndjson");
}

std::string keys_of(const Json& object) {
  std::string keys;
  for (const auto& item : object.items()) {
    if (keys.size() > 100) return keys + ", ...";
    keys += (keys.empty() ? "" : ", ") + item.key();
  }
  return keys.empty() ? "no fields" : "the fields " + keys;
}

// Appends the texts of one value; says what was found instead.
std::optional<std::string> add_texts(const Json& value, bool strings,
                                     std::vector<std::string>& documents) {
  if (strings && value.is_string()) {
    documents.push_back(value.get<std::string>());
    return std::nullopt;
  }
  if (!value.is_object())
    return formatted("found a JSON {}", value.type_name());
  const auto text = value.find("text");
  if (text == value.end()) return "found " + keys_of(value);
  if (text->is_string()) {
    documents.push_back(text->get<std::string>());
    return std::nullopt;
  }
  if (!text->is_array()) {
    return formatted("found a JSON {} in 'text'", text->type_name());
  }
  for (const Json& item : *text) {
    if (!item.is_string()) {
      return formatted("found a JSON {} in 'text'", item.type_name());
    }
    documents.push_back(item.get<std::string>());
  }
  return std::nullopt;
}

constexpr const char* kWanted = ", wanted an object with a string field 'text'";

// Documents of a file that is one JSON value; `complaint` if it has none.
std::vector<std::string> documents_of_value(const Json& value,
                                            std::string& complaint) {
  std::vector<std::string> documents;
  if (!value.is_array()) {
    if (const auto found = add_texts(value, false, documents)) {
      complaint = *found + kWanted;
    }
    return documents;
  }
  for (std::size_t i = 0; i < value.size() && complaint.empty(); ++i) {
    if (const auto found = add_texts(value[i], true, documents)) {
      complaint = formatted("item {}: {}{}", i, *found, kWanted);
    }
  }
  if (value.empty()) complaint = "found an empty array";
  return documents;
}

// A document a line, strict after the first one. Empty if the first line is
// none and `strict` is not set.
std::vector<std::string> documents_of_lines(std::string_view content,
                                            bool strict,
                                            const std::string& where) {
  std::vector<std::string> documents;
  std::size_t number = 0;
  for (std::size_t at = 0; at < content.size();) {
    ++number;
    const std::size_t end = std::min(content.find('\n', at), content.size());
    const std::string_view line = content.substr(at, end - at);
    at = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const Json value = Json::parse(line, nullptr, false);
    const auto complaint = value.is_discarded()
                               ? "found what is not JSON"
                               : add_texts(value, strict, documents);
    if (complaint && !strict && documents.empty()) return {};
    if (complaint) invalid(where, number, *complaint + kWanted);
  }
  return documents;
}

void check_no_nul(const std::vector<std::string>& documents,
                  const std::string& where) {
  for (std::size_t i = 0; i < documents.size(); ++i) {
    if (documents[i].find('\0') != std::string::npos) {
      fail(ErrorCode::kInvalidInput, "{}: text {} has a NUL", where, i);
    }
  }
}

}  // namespace

std::vector<std::string> text_documents(std::string_view content,
                                        const std::string& where) {
  check_text(content, where);
  const bool named = is_named_json(where);
  const std::size_t first = content.find_first_not_of(" \t\r\n");
  const bool bracketed = first != std::string_view::npos &&
                         (content[first] == '{' || content[first] == '[');
  if (!named && !bracketed) return {std::string(content)};
  const Json whole = Json::parse(content, nullptr, false);
  std::vector<std::string> documents;
  std::string complaint;
  if (!whole.is_discarded() && bracketed) {
    documents = documents_of_value(whole, complaint);
    if (!complaint.empty() && named) {
      fail(ErrorCode::kInvalidInput, "{}: {}", where, complaint);
    }
  } else {
    documents = documents_of_lines(content, named, where);
  }
  if (!complaint.empty() || (documents.empty() && !named)) {
    return {std::string(content)};
  }
  check_no_nul(documents, where);
  return documents;
}

TextDocuments read_text_documents(const std::filesystem::path& path) {
  const std::string content = read_file(path);
  return {.documents = text_documents(content, path.string()),
          .sha256 = sha256_hex(content)};
}

}  // namespace llmpress
