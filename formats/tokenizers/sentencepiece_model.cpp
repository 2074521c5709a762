#include "formats/tokenizers/sentencepiece_model.h"

#include <array>
#include <cstring>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// Wire types of protobuf.
enum class Wire : std::uint64_t {
  kVarint = 0,
  kEight = 1,
  kBytes = 2,
  kFour = 5
};

// Field after field of one message.
class Message {
 public:
  Message(std::string_view bytes, const std::string& origin)
      : bytes_(bytes), origin_(origin) {}

  bool next() {
    if (bytes_.empty()) return false;
    const std::uint64_t tag = varint();
    field = tag >> 3;
    switch (static_cast<Wire>(tag & 7)) {
      case Wire::kVarint:
        number = varint();
        return true;
      case Wire::kEight:
        text = take(8);
        return true;
      case Wire::kBytes:
        text = take(varint());
        return true;
      case Wire::kFour:
        text = take(4);
        return true;
    }
    corrupt("an unknown wire type");
  }

  float real() const {
    float value = 0;
    if (text.size() != sizeof value) corrupt("a score is no float");
    std::memcpy(&value, text.data(), sizeof value);
    return value;
  }

  std::uint64_t field = 0, number = 0;
  std::string_view text{};

 private:
  [[noreturn]] void corrupt(const char* what) const {
    fail(ErrorCode::kCorruptFile, "{}: not a SentencePiece model: {}", origin_,
         what);
  }

  std::string_view take(std::uint64_t size) {
    if (size > bytes_.size()) corrupt("a field exceeds it");
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto octet = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{octet & 0x7fu} << shift;
      if (octet < 0x80) return value;
    }
    corrupt("a number of more than ten octets");
  }

  std::string_view bytes_;
  const std::string& origin_;
};

SentencePiece read_piece(std::string_view bytes, const std::string& origin) {
  SentencePiece piece;
  for (Message m(bytes, origin); m.next();) {
    if (m.field == 1) piece.text = m.text;
    if (m.field == 2) piece.score = m.real();
    if (m.field == 3) {
      if (m.number < 1 || m.number > 6) {
        fail(ErrorCode::kCorruptFile, "{}: piece type {}", origin, m.number);
      }
      piece.type = static_cast<PieceType>(m.number);
    }
  }
  return piece;
}

void read_trainer(std::string_view bytes, const std::string& origin,
                  SentencePieceModel& model) {
  for (Message m(bytes, origin); m.next();) {
    if (m.field == 3 && m.number >= 1 && m.number <= 4) {
      model.kind = static_cast<SentencePieceKind>(m.number);
    }
    if (m.field == 35) model.byte_fallback = m.number != 0;
    if (m.field == 45) model.unknown = m.text;
    if (m.field == 46) model.bos = m.text;
    if (m.field == 47) model.eos = m.text;
    if (m.field == 48) model.pad = m.text;
  }
}

void read_normalizer(std::string_view bytes, const std::string& origin,
                     SentencePieceModel& model) {
  for (Message m(bytes, origin); m.next();) {
    if (m.field == 2) model.charsmap = m.text;
    if (m.field == 3) model.add_dummy_prefix = m.number != 0;
    if (m.field == 4) model.remove_extra_whitespaces = m.number != 0;
  }
}

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) {
    out += static_cast<char>((value & 0x7f) | 0x80);
  }
  out += static_cast<char>(value);
}

void put_tag(std::string& out, std::uint64_t field, Wire wire) {
  put_varint(out, field << 3 | static_cast<std::uint64_t>(wire));
}

void put_number(std::string& out, std::uint64_t field, std::uint64_t value) {
  put_tag(out, field, Wire::kVarint);
  put_varint(out, value);
}

void put_bytes(std::string& out, std::uint64_t field, std::string_view bytes) {
  put_tag(out, field, Wire::kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

void put_real(std::string& out, std::uint64_t field, float value) {
  put_tag(out, field, Wire::kFour);
  std::array<char, sizeof value> octets{};
  std::memcpy(octets.data(), &value, sizeof value);
  out.append(octets.data(), octets.size());
}

// Ids are found by piece; -1 where there is none.
std::uint64_t id_of(const SentencePieceModel& model, std::string_view piece) {
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    if (model.pieces[id].text == piece) return id;
  }
  return ~std::uint64_t{0};
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes,
                                             const std::string& origin) {
  SentencePieceModel model;
  for (Message m(bytes, origin); m.next();) {
    if (m.field == 1) model.pieces.push_back(read_piece(m.text, origin));
    if (m.field == 2) read_trainer(m.text, origin, model);
    if (m.field == 3) read_normalizer(m.text, origin, model);
  }
  return model;
}

std::string write_sentencepiece_model(const SentencePieceModel& model) {
  std::string out;
  for (const SentencePiece& piece : model.pieces) {
    std::string body;
    put_bytes(body, 1, piece.text);
    put_real(body, 2, piece.score);
    put_number(body, 3, static_cast<std::uint64_t>(piece.type));
    put_bytes(out, 1, body);
  }
  std::string trainer;
  put_number(trainer, 3, static_cast<std::uint64_t>(model.kind));
  put_number(trainer, 4, model.pieces.size());
  put_number(trainer, 35, model.byte_fallback ? 1 : 0);
  const std::array<std::string_view, 4> names{model.unknown, model.bos,
                                              model.eos, model.pad};
  for (std::size_t i = 0; i < names.size(); ++i) {
    put_number(trainer, 40 + i, id_of(model, names[i]));
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    put_bytes(trainer, 45 + i, names[i]);
  }
  put_bytes(out, 2, trainer);
  std::string normalizer;
  put_bytes(normalizer, 1, "identity");
  if (!model.charsmap.empty()) put_bytes(normalizer, 2, model.charsmap);
  put_number(normalizer, 3, model.add_dummy_prefix ? 1 : 0);
  put_number(normalizer, 4, model.remove_extra_whitespaces ? 1 : 0);
  put_bytes(out, 3, normalizer);
  return out;
}

}  // namespace llmpress
