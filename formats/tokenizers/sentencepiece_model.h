// tokenizer.model as values: what a SentencePiece model says of its pieces and
// of the text in front of them (sentencepiece_model.proto):
//   1: pieces { 1: piece, 2: score, 3: type }
//   2: trainer_spec { 3: model_type, 35: byte_fallback, 40..43: ids of unk, bos,
//      eos, pad, 45..48: their pieces }
//   3: normalizer_spec { 2: precompiled_charsmap, 3: add_dummy_prefix,
//      4: remove_extra_whitespaces }
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmpress {

enum class PieceType {
  kNormal = 1,
  kUnknown,
  kControl,
  kUserDefined,
  kUnused,
  kByte
};
struct SentencePiece {
  std::string text{};
  float score = 0;
  PieceType type = PieceType::kNormal;
};
enum class SentencePieceKind { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };
struct SentencePieceModel {
  std::vector<SentencePiece> pieces{};  // by id
  SentencePieceKind kind = SentencePieceKind::kUnigram;
  std::string unknown = "<unk>", bos = "<s>", eos = "</s>", pad = "<pad>";
  bool byte_fallback = false;
  std::string charsmap{};
  bool add_dummy_prefix = true, remove_extra_whitespaces = true;
};

// Throws Error(kCorruptFile, "<origin>: ...").
SentencePieceModel parse_sentencepiece_model(std::string_view model,
                                             const std::string& origin);
std::string write_sentencepiece_model(const SentencePieceModel& model);

}  // namespace llmpress
