// Texts to calibrate on and to score, told apart by what is in the file:
//
//   plain text       one document
//   JSON Lines       a document a line: an object whose field "text" it is
//   JSON             an array of such objects or of strings, one such object,
//   or
//                    an object whose field "text" is a list of strings
//
// In a file named .json, .jsonl or .ndjson anything else is an error; elsewhere
// braces that are none of these are plain text.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace llmpress {

struct TextDocuments {
  std::vector<std::string> documents{};  // well-formed UTF-8 without NUL
  std::string sha256{};                  // of the file
};

// Throws Error with the path, the line and the byte: kUnsupported for files of
// another kind (compressed, UTF-16, a byte order mark, Parquet), kInvalidInput
// for bytes that are not UTF-8, NULs and JSON without texts.
TextDocuments read_text_documents(const std::filesystem::path& path);

// Of the file's content; `where` is its path in messages.
std::vector<std::string> text_documents(std::string_view content,
                                        const std::string& where);

}  // namespace llmpress
