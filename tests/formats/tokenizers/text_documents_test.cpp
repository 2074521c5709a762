#include "formats/tokenizers/text_documents.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"

namespace llmpress {
namespace {

using Texts = std::vector<std::string>;
using namespace std::string_literals;

struct Refusal {
  ErrorCode code{};
  std::string what{};
};

Refusal refusal(const std::string& content, const std::string& name) {
  try {
    (void)text_documents(content, name);
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {ErrorCode::kInvalidArgument, "none"};
}

TEST(TextDocuments, TheSameTextsAreReadUnderEveryName) {
  const Texts wanted{"One \"cat\".\nIt ran.", "\u00E9"};
  const std::string lines =
      "{\"text\": \"One \\\"cat\\\".\\nIt ran.\", \"n\": 1}\r\n\n"
      "{\"text\": \"\\u00e9\"}\n";
  const std::string array =
      " [{\"text\": \"One \\\"cat\\\".\\nIt ran.\"},\n \"\u00E9\"]";
  const std::string columns =
      "{\"id\": [1, 2],\n \"text\": [\"One \\\"cat\\\".\\nIt ran.\", "
      "\"\u00E9\"]}";
  for (const std::string name :
       {"c.jsonl", "c.JSONL", "c.json", "c.Json", "c.ndjson", "c.txt", "c"}) {
    EXPECT_EQ(text_documents(lines, name), wanted) << name;
    EXPECT_EQ(text_documents(array, name), wanted) << name;
    EXPECT_EQ(text_documents(columns, name), wanted) << name;
    EXPECT_EQ(text_documents("{\"text\": \"a\"}", name), Texts{"a"}) << name;
  }
  EXPECT_EQ(text_documents("\"a\"\n{\"text\": \"b\"}\n", "c.jsonl"),
            (Texts{"a", "b"}));
}

TEST(TextDocuments, PlainTextIsOneDocumentWhateverItBeginsWith) {
  for (const std::string text :
       {"", "Once.\n", "\"Go!\" she said.\n", "[edit] Cats\n", "{x} \u00E9",
        "{\"a\": 1}\n", "[1, 2]", "[]", "12", "{}"}) {
    EXPECT_EQ(text_documents(text, "t.txt"), Texts{text});
  }
}

TEST(TextDocuments, JsonWithoutTextsIsRefusedWithItsPlace) {
  EXPECT_EQ(
      refusal("{\"text\": \"a\"}\n\n{\"txt\": 1, \"id\": 2}\n", "d/c.jsonl")
          .what,
      "d/c.jsonl:3: found the fields id, txt, wanted an object with a "
      "string field 'text'");
  // The first line settles what a file is, under any name.
  EXPECT_EQ(refusal("{\"text\": \"a\"}\nnot json\n", "c.txt").what,
            "c.txt:2: found what is not JSON, wanted an object with a string "
            "field 'text'");
  EXPECT_EQ(refusal("[{\"text\": \"a\"}, 7]", "c.json").what,
            "c.json: item 1: found a JSON number, wanted an object with a "
            "string field 'text'");
  EXPECT_EQ(refusal("{\"messages\": []}", "c.json").what,
            "c.json: found the fields messages, wanted an object with a string "
            "field 'text'");
  EXPECT_EQ(refusal("{\"text\": [1]}", "c.json").what,
            "c.json: found a JSON number in 'text', wanted an object with a "
            "string field 'text'");
  EXPECT_EQ(refusal("Once upon a time", "c.json").what.substr(0, 9),
            "c.json:1:");
  EXPECT_EQ(refusal("[]", "c.json").what.substr(0, 7), "c.json:");
  EXPECT_EQ(refusal("[\"a\\u0000b\"]", "c.json").what,
            "c.json: text 0 has a NUL");
}

TEST(TextDocuments, OtherEncodingsAreRefusedWithFileLineAndByte) {
  Refusal r = refusal("ab\ncaf\xE9 x\n", "latin1.txt");
  EXPECT_EQ(r.code, ErrorCode::kInvalidInput);
  EXPECT_TRUE(r.what.starts_with("latin1.txt:2: byte 6 (0xE9) is not UTF-8"))
      << r.what;
  r = refusal("a\0b\0\n\0"s, "t.txt");
  EXPECT_TRUE(r.what.starts_with("t.txt:1: byte 1 is NUL")) << r.what;
  for (const std::string& text : {"\xFF\xFE\x61\0"s, "\xFE\xFF\0\x61"s}) {
    EXPECT_NE(refusal(text, "t.txt").what.find("UTF-16"), std::string::npos);
  }
  EXPECT_NE(refusal("\xEF\xBB\xBF{}", "t.json").what.find("byte order mark"),
            std::string::npos);
}

TEST(TextDocuments, CompressedFilesAreRefusedByTheirKind) {
  for (const auto& [content, kind] :
       std::vector<std::pair<std::string, std::string>>{
           {"\x1F\x8B\x08\0\0"s, "gzip"},
           {"\x28\xB5\x2F\xFD\x04"s, "zstd"},
           {"\xFD\x37\x7A\x58\x5A\0"s, "xz"},
           {"BZh91AY"s, "bzip2"},
           {"PK\x03\x04\x14"s, "zip"},
           {"PAR1\x15"s, "Parquet"}}) {
    const Refusal r = refusal(content, "c.jsonl.gz");
    EXPECT_EQ(r.code, ErrorCode::kUnsupported) << kind;
    EXPECT_NE(r.what.find(kind), std::string::npos) << r.what;
  }
}

}  // namespace
}  // namespace llmpress
