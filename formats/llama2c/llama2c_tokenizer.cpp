#include "formats/llama2c/llama2c_tokenizer.h"

#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/files/mapped_file.h"
#include "formats/llama2c/llama2c_file.h"
#include "formats/tokenizers/sentencepiece_model.h"

namespace llmpress {
namespace {

constexpr std::size_t kUnknown = 0, kBos = 1, kEos = 2;
constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581

class PieceReader {
 public:
  PieceReader(std::span<const std::byte> file, const std::string& where)
      : file_(file), where_(where) {
    (void)number<std::uint32_t>();  // the longest piece
  }

  bool at_end() const { return at_ == file_.size(); }

  SentencePiece next() {
    SentencePiece piece;
    piece.score = number<float>();
    const auto size = number<std::uint32_t>();
    if (size == 0 || size > file_.size() - at_) cut();
    piece.text = {reinterpret_cast<const char*>(file_.data()) + at_, size};
    at_ += size;
    return piece;
  }

 private:
  [[noreturn]] void cut() const {
    fail(ErrorCode::kCorruptFile,
         "{}: no tokenizer of llama2.c: octet {} of {} ends a piece", where_,
         at_, file_.size());
  }
  template <class T>
  T number() {
    T value{};
    if (sizeof value > file_.size() - at_) cut();
    std::memcpy(&value, file_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  std::span<const std::byte> file_;
  const std::string& where_;
  std::size_t at_ = 0;
};

bool is_byte(std::string_view text) {
  return text.size() == 6 && text.starts_with("<0x") && text.ends_with('>') &&
         text.substr(3, 2).find_first_not_of("0123456789ABCDEF") ==
             std::string_view::npos;
}

std::string with_marks(std::string_view text) {
  std::string marked;
  for (const char c : text) {
    if (c == ' ') {
      marked += kSpace;
    } else {
      marked += c;
    }
  }
  return marked;
}

// `id` decides what it is, as for the reference's own models.
void name_piece(std::size_t id, SentencePiece& piece) {
  if (id == kUnknown) {
    piece.type = PieceType::kUnknown;
  } else if (id == kBos || id == kEos) {
    piece.text = id == kBos ? "<s>" : "</s>";
    piece.type = PieceType::kControl;
  } else if (is_byte(piece.text)) {
    piece.type = PieceType::kByte;
  } else {
    piece.text = with_marks(piece.text);
  }
}

std::optional<std::string> content_of(const std::filesystem::path& file) {
  if (!path_exists(file)) return std::nullopt;
  return read_file(file);
}

}  // namespace

std::string sentencepiece_of_llama2c(std::span<const std::byte> file,
                                     std::size_t vocabulary,
                                     const std::string& where) {
  SentencePieceModel model{.kind = SentencePieceKind::kBpe,
                           .remove_extra_whitespaces = false};
  PieceReader reader(file, where);
  while (!reader.at_end()) {
    SentencePiece piece = reader.next();
    name_piece(model.pieces.size(), piece);
    if (model.pieces.empty()) model.unknown = piece.text;
    model.byte_fallback |= piece.type == PieceType::kByte;
    model.pieces.push_back(std::move(piece));
  }
  if (model.pieces.size() != vocabulary) {
    fail(ErrorCode::kCorruptFile, "{}: has {} pieces, the model has {}", where,
         model.pieces.size(), vocabulary);
  }
  return write_sentencepiece_model(model);
}

std::map<std::string, std::string> read_llama2c_files(
    const std::filesystem::path& path) {
  const std::filesystem::path folder = path.parent_path();
  std::map<std::string, std::string> files;
  const std::filesystem::path own = folder / "tokenizer.bin";
  if (const auto octets = content_of(own)) {
    const Llama2cModel model = open_llama2c(path);
    const TensorInfo& embedding =
        model.reader->require("model.embed_tokens.weight");
    files["tokenizer.model"] = sentencepiece_of_llama2c(
        std::as_bytes(std::span(*octets)), embedding.shape[0], own.string());
    files["tokenizer_config.json"] =
        "{\n  \"tokenizer_class\": \"LlamaTokenizer\",\n"
        "  \"bos_token\": \"<s>\",\n  \"eos_token\": \"</s>\",\n"
        "  \"add_bos_token\": true,\n  \"add_eos_token\": false,\n"
        "  \"legacy\": true\n}\n";
    return files;
  }
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "tokenizer_config.json"}) {
    if (auto content = content_of(folder / name)) {
      files[name] = std::move(*content);
    }
  }
  return files;
}

}  // namespace llmpress
