#include "formats/tokenizers/added_tokens.h"

#include <algorithm>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

std::size_t first_byte(const AddedToken& token) {
  return static_cast<unsigned char>(token.content.front());
}

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  std::size_t at = previous_utf8(text, text.size());
  return is_word_character(next_utf8(text, at));
}

bool starts_with_word(std::string_view text) {
  std::size_t at = 0;
  return !text.empty() && is_word_character(next_utf8(text, at));
}

std::size_t before_white_space(std::string_view text, std::size_t end,
                               std::size_t floor) {
  while (end > floor) {
    const std::size_t begin = previous_utf8(text, end);
    std::size_t at = begin;
    if (!is_white_space(next_utf8(text, at))) break;
    end = begin;
  }
  return end;
}

std::size_t after_white_space(std::string_view text, std::size_t begin) {
  while (begin < text.size()) {
    std::size_t at = begin;
    if (!is_white_space(next_utf8(text, at))) break;
    begin = at;
  }
  return begin;
}

}  // namespace

void check_added_token(const std::string& content, const JsonView& place) {
  constexpr std::size_t kLongest = 4096;
  if (content.empty()) place.corrupt("an added token is empty");
  if (content.size() > kLongest) {
    place.corrupt(formatted("an added token of {} bytes, wanted at most 4096",
                            content.size()));
  }
}

AddedToken read_added_token(const JsonView& json, TokenId id) {
  const JsonView content = json.at("content");
  check_added_token(content.text(), content);
  const bool special = json.bool_or("special", false);
  return {.id = id,
          .content = content.text(),
          .single_word = json.bool_or("single_word", false),
          .lstrip = json.bool_or("lstrip", false),
          .rstrip = json.bool_or("rstrip", false),
          .normalized = json.bool_or("normalized", !special),
          .special = special};
}

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const auto& t) { return t.content.empty(); });
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) {
                     return a.content < b.content;  // bytes as unsigned
                   });
  for (const AddedToken& token : tokens_) {
    ++first_of_byte_[first_byte(token) + 1];
  }
  for (std::size_t b = 1; b < first_of_byte_.size(); ++b) {
    first_of_byte_[b] += first_of_byte_[b - 1];
  }
}

const AddedToken* AddedTokenFinder::longest_at(std::string_view text,
                                               std::size_t at) const {
  const auto byte_of = [](std::string_view token, std::size_t i) {
    return static_cast<unsigned char>(token[i]);
  };
  const auto byte = byte_of(text, at);
  auto low =
      tokens_.begin() + static_cast<std::ptrdiff_t>(first_of_byte_[byte]);
  auto high =
      tokens_.begin() + static_cast<std::ptrdiff_t>(first_of_byte_[byte + 1u]);
  const AddedToken* longest = nullptr;
  // [low, high) begin with the first `length` bytes of the text here.
  for (std::size_t length = 1; low != high; ++length) {
    if (low->content.size() == length) longest = &*low;
    while (low != high && low->content.size() == length) ++low;
    if (at + length == text.size()) break;
    const auto here = [&](const AddedToken& token) {
      return byte_of(token.content, length);
    };
    // Not equal_range(), whose subrange clang 14 does not take.
    const unsigned char next = byte_of(text, at + length);
    low = std::ranges::lower_bound(low, high, next, {}, here);
    high = std::ranges::upper_bound(low, high, next, {}, here);
  }
  return longest;
}

std::vector<AddedTokenFinder::Part> AddedTokenFinder::split(
    std::string_view text) const {
  std::vector<Part> parts;
  std::size_t done = 0;  // all before it is in parts
  const auto flush = [&](std::size_t end) {
    if (end > done) parts.push_back({text.substr(done, end - done), {}});
    done = std::max(done, end);
  };
  for (std::size_t at = 0; at < text.size() && !tokens_.empty();) {
    const AddedToken* const token = longest_at(text, at);
    if (!token) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + token->content.size();
    at = end;  // a token that is discarded below hides what it covers, too
    if (begin < done) continue;  // white space that an rstrip took
    if (token->single_word && (ends_with_word(text.substr(0, begin)) ||
                               starts_with_word(text.substr(end)))) {
      continue;
    }
    if (token->lstrip) begin = before_white_space(text, begin, done);
    if (token->rstrip) end = after_white_space(text, end);
    flush(begin);
    parts.push_back({text.substr(begin, end - begin), token->id});
    done = end;
  }
  flush(text.size());
  return parts;
}

}  // namespace llmpress
