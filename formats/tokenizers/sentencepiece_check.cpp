#include "formats/tokenizers/sentencepiece_check.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "compress/core/formatted.h"
#include "formats/tokenizers/character_map.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

[[noreturn]] void corrupt(const std::string& origin, const std::string& what) {
  fail(ErrorCode::kCorruptFile, "{}: not a SentencePiece model: {}", origin,
       what);
}

// --- protobuf's wire format
// ---------------------------------------------------

struct Field {
  std::uint64_t number = 0;
  unsigned wire_type = 0;
  std::uint64_t value = 0;     // of wire types 0, 1, 5
  std::string_view content{};  // of wire type 2
};

class Message {
 public:
  Message(std::string_view bytes, const std::string& origin)
      : bytes_(bytes), origin_(origin) {}

  std::optional<Field> next() {
    if (bytes_.empty()) return std::nullopt;
    const std::uint64_t key = varint();
    Field field{.number = key >> 3,
                .wire_type = static_cast<unsigned>(key & 7)};
    switch (field.wire_type) {
      case 0:
        field.value = varint();
        return field;
      case 1:
      case 5: {
        const std::string_view raw = take(field.wire_type == 1 ? 8 : 4);
        std::memcpy(&field.value, raw.data(), raw.size());
        return field;
      }
      case 2:
        field.content = take(varint());
        return field;
    }
    corrupt(origin_, formatted("a field of wire type {}", field.wire_type));
  }

 private:
  std::string_view take(std::uint64_t size) {
    if (size > bytes_.size()) corrupt(origin_, "a field ends behind the file");
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1).front());
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    corrupt(origin_, "a number of more than 64 bits");
  }

  std::string_view bytes_;
  const std::string& origin_;
};

// More could begin at one place of a text than the library keeps on its stack.
constexpr std::size_t kMostUserDefined = 64;

void check_normalizer(std::string_view spec, const std::string& origin) {
  Message message(spec, origin);
  while (const auto field = message.next()) {
    if (field->number == 2 && field->wire_type == 2 &&
        !field->content.empty()) {
      CharacterMap(field->content, origin + ": not a SentencePiece model");
    }
  }
}

// --- pieces
// -------------------------------------------------------------------

void check_piece(std::string_view bytes, std::size_t index,
                 std::vector<std::string_view>& user_defined,
                 const std::string& origin) {
  constexpr std::uint64_t kUserDefined = 4;
  const auto refuse = [&](const char* what) {
    corrupt(origin, formatted("piece {} {}", index, what));
  };
  std::string_view piece;
  std::uint64_t type = 1;
  Message message(bytes, origin);
  while (const auto field = message.next()) {
    if (field->number == 1 && field->wire_type == 2) piece = field->content;
    if (field->number == 2 && field->wire_type == 5) {
      float score = 0;
      std::memcpy(&score, &field->value, sizeof(score));
      if (!std::isfinite(score)) refuse("has a score that is not finite");
    }
    if (field->number == 3 && field->wire_type == 0) {
      type = field->value;
      if (type < 1 || type > 6) refuse("is of an unknown type");
    }
  }
  if (piece.empty()) refuse("is empty");
  if (piece.find('\0') != std::string_view::npos) refuse("has a NUL");
  if (valid_utf8_length(piece) != piece.size()) refuse("is not UTF-8");
  if (type == kUserDefined) user_defined.push_back(piece);
}

// How many of them can begin at one place of a text.
void check_nesting(std::vector<std::string_view> symbols,
                   const std::string& origin) {
  std::ranges::sort(symbols);
  std::vector<std::string_view> chain;  // each a prefix of the next
  for (const std::string_view symbol : symbols) {
    while (!chain.empty() && !symbol.starts_with(chain.back())) {
      chain.pop_back();
    }
    chain.push_back(symbol);
    if (chain.size() > kMostUserDefined) {
      corrupt(origin, "more than 64 user-defined pieces begin alike");
    }
  }
}

// Lines of a token in base 64 and its rank. A protobuf of pieces begins with a
// line feed.
bool is_tiktoken(std::string_view model) {
  constexpr std::size_t kLongestLine = 64;
  const std::size_t end = model.substr(0, kLongestLine).find('\n');
  return end != std::string_view::npos && end > 2 &&
         model.substr(end - 2, 2) == " 0";
}

}  // namespace

void check_sentencepiece_model(std::string_view model,
                               const std::string& origin) {
  if (is_tiktoken(model)) {
    fail(ErrorCode::kUnsupported,
         "{}: is a vocabulary of tiktoken, as Llama 3 has it, which is not "
         "read; put the model's tokenizer.json beside it",
         origin);
  }
  std::size_t pieces = 0;
  std::vector<std::string_view> user_defined;
  Message message(model, origin);
  while (const auto field = message.next()) {
    if (field->wire_type != 2) continue;
    if (field->number == 1) {
      check_piece(field->content, pieces++, user_defined, origin);
    }
    if (field->number == 3 || field->number == 5) {
      check_normalizer(field->content, origin);
    }
  }
  if (pieces == 0) corrupt(origin, "has no pieces");
  check_nesting(std::move(user_defined), origin);
}

}  // namespace llmpress
