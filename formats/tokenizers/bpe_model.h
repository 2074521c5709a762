// Byte pair encoding (Sennrich et al. 2016, arXiv:1508.07909): of all adjacent
// pairs that have a merge, the one of the lowest rank is merged, the leftmost
// of several, until no pair has one.
//
// Cost: a heap of the pairs over a linked list of symbols, O(n log n) for a
// piece of n symbols. A Llama-2 document is one piece, so it is first cut
// where no merge can reach across: between two symbols that stand side by side
// inside no merged token. That is exact, makes words of documents, and lets the
// words be cached.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "formats/tokenizers/piece_model.h"

namespace llmpress {

struct BpeMerge {
  TokenId left = 0, right = 0, result = 0;
};

struct BpeModelConfig {
  // The tokens spell bytes as GPT-2 does (formats/tokenizers/token_decoder.h).
  bool byte_level = false;
  // A character without a token becomes tokens <0x00>..<0xFF> if all are there.
  bool byte_fallback = false;
  bool fuse_unknown = false;   // one token for a run of unknown characters
  bool ignore_merges = false;  // a piece that is a token is that token
  // What the first symbols have in front unless they begin a piece, and behind
  // where they end one, in the vocabulary; not of a byte level.
  std::string inner_prefix{}, end_suffix{};
  std::optional<TokenId> unknown{};
  std::string origin{};  // named in messages
};

class BpeModel final : public PieceModel {
 public:
  // `merges` in the order of their rank; of two for one pair the last counts.
  // Every id must be one of `vocabulary`.
  BpeModel(const Vocabulary& vocabulary, const std::vector<BpeMerge>& merges,
           BpeModelConfig config);
  ~BpeModel() override;
  PieceEncoder encoder() const override;

  // Words seen before and memory to work in; one for each encode() of a text,
  // so that threads share none.
  class Scratch {
   public:
    Scratch();
    ~Scratch();

   private:
    friend class BpeModel;
    struct State;
    std::unique_ptr<State> state_;
  };
  // Appends the ids of `piece`, which must be well-formed UTF-8. Throws
  // Error(kInvalidInput) at a character for which there is no token at all.
  void encode(std::string_view piece, Scratch& scratch,
              std::vector<TokenId>& ids) const;

 private:
  class PairTable;
  static constexpr TokenId kNone = 0xFFFFFFFF;

  void index_alphabet(const Vocabulary& vocabulary);
  void index_merges(const Vocabulary& vocabulary,
                    const std::vector<BpeMerge>& merges);
  // The token of the character or byte at `at`, which moves past it, or kNone.
  TokenId symbol_at(std::string_view piece, std::size_t& at) const;
  void append_unknown(std::string_view character, bool& after_unknown,
                      std::vector<TokenId>& symbols) const;
  void encode_part(std::string_view part, Scratch& scratch,
                   std::vector<TokenId>& ids) const;
  void read_symbols(std::string_view part, std::vector<TokenId>& symbols) const;
  TokenId affixed_symbol(std::string_view part, std::size_t begin,
                         std::size_t end, std::string& spelling) const;
  void merge(Scratch& scratch) const;

  BpeModelConfig config_;
  std::array<TokenId, 256> byte_symbols_{};  // of bytes, or of ASCII
  std::unordered_map<char32_t, TokenId> character_symbols_{};
  std::array<TokenId, 256> fallback_symbols_{};  // <0x00>..<0xFF>
  Vocabulary pieces_{};                          // for ignore_merges
  Vocabulary affixed_{};  // the whole vocabulary, where symbols have affixes
  std::unique_ptr<PairTable> merges_;      // pair -> rank, result
  std::unique_ptr<PairTable> neighbours_;  // pairs inside merged tokens
  bool cuts_ = true;
};

}  // namespace llmpress
