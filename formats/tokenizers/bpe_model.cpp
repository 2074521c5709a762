#include "formats/tokenizers/bpe_model.h"

#include <algorithm>
#include <bit>
#include <queue>
#include <tuple>

#include "compress/core/formatted.h"
#include "formats/tokenizers/token_decoder.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {

// Open addressing with linear probing, at most half full.
class BpeModel::PairTable {
 public:
  struct Entry {
    TokenId left = kNone, right = kNone;  // left == kNone: free
    std::uint32_t rank = 0;
    TokenId result = 0;
  };

  explicit PairTable(std::size_t most_pairs)
      : entries_(std::bit_ceil(2 * most_pairs + 2)) {}

  void set(const Entry& entry) {
    entries_[slot(entry.left, entry.right)] = entry;
  }
  const Entry* find(TokenId left, TokenId right) const {
    const Entry& entry = entries_[slot(left, right)];
    return entry.left == kNone ? nullptr : &entry;
  }

 private:
  std::size_t slot(TokenId left, TokenId right) const {
    const std::size_t mask = entries_.size() - 1;
    std::uint64_t hash = static_cast<std::uint64_t>(left) << 32 | right;
    hash *= 0x9E3779B97F4A7C15;  // Fibonacci hashing
    std::size_t at = (hash ^ hash >> 32) & mask;
    while (entries_[at].left != kNone &&
           (entries_[at].left != left || entries_[at].right != right)) {
      at = (at + 1) & mask;
    }
    return at;
  }

  std::vector<Entry> entries_;
};

struct BpeModel::Scratch::State {
  // A pair as it was when it entered the heap; stale if the symbols changed.
  struct Candidate {
    std::uint32_t rank = 0, at = 0;
    TokenId left = 0, right = 0, result = 0;
    bool operator>(const Candidate& other) const {
      return std::tie(rank, at) > std::tie(other.rank, other.at);
    }
  };
  struct Range {
    std::size_t begin = 0, size = 0;
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>()(text);
    }
  };

  std::unordered_map<std::string, Range, Hash, std::equal_to<>> known{};
  std::vector<TokenId> known_ids{};
  std::vector<TokenId> symbols{};
  std::vector<std::uint32_t> previous{}, next{};
  std::vector<Candidate> heap{};
};

BpeModel::Scratch::Scratch() : state_(std::make_unique<State>()) {}
BpeModel::Scratch::~Scratch() = default;
BpeModel::~BpeModel() = default;

BpeModel::BpeModel(const Vocabulary& vocabulary,
                   const std::vector<BpeMerge>& merges, BpeModelConfig config)
    : config_(std::move(config)),
      merges_(std::make_unique<PairTable>(merges.size())),
      neighbours_(std::make_unique<PairTable>(merges.size())) {
  index_alphabet(vocabulary);
  index_merges(vocabulary, merges);
  if (!config_.inner_prefix.empty() || !config_.end_suffix.empty()) {
    affixed_ = vocabulary;
    cuts_ = false;  // a symbol depends on where in a piece it stands
  }
}

PieceEncoder BpeModel::encoder() const {
  return [this, scratch = std::make_shared<Scratch>()](
             std::string_view piece, std::vector<TokenId>& ids) {
    encode(piece, *scratch, ids);
  };
}

void BpeModel::index_alphabet(const Vocabulary& vocabulary) {
  byte_symbols_.fill(kNone);
  fallback_symbols_.fill(kNone);
  for (const auto& [token, id] : vocabulary) {
    if (token.empty()) continue;
    if (const auto byte = fallback_byte(token)) fallback_symbols_[*byte] = id;
    std::size_t at = 0;
    const char32_t first = next_utf8(token, at);
    if (at == token.size()) {  // one character
      const auto byte = config_.byte_level ? byte_of_character(first)
                        : first < 0x80
                            ? std::optional(static_cast<unsigned char>(first))
                            : std::nullopt;
      if (byte) {
        byte_symbols_[*byte] = id;
      } else {
        character_symbols_[first] = id;
      }
    }
    if (!config_.ignore_merges) continue;
    if (!config_.byte_level) {
      pieces_[token] = id;
    } else if (auto bytes = byte_level_bytes(token)) {
      pieces_[std::move(*bytes)] = id;
    }
  }
}

void BpeModel::index_merges(const Vocabulary& vocabulary,
                            const std::vector<BpeMerge>& merges) {
  std::unordered_map<TokenId, std::string_view> spelling;
  for (const auto& [token, id] : vocabulary) spelling[id] = token;
  const auto symbol_of = [&](char32_t character) {
    std::string text;
    append_utf8(text, character);
    const auto found = vocabulary.find(text);
    return found == vocabulary.end() ? kNone : found->second;
  };
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right, result] = merges[rank];
    merges_->set({left, right, static_cast<std::uint32_t>(rank), result});
    const std::string_view a = spelling.at(left), b = spelling.at(right);
    // Symbols that are no characters of the text: where they may be merged is
    // not seen in the spelling.
    const auto opaque = [&](std::string_view token, TokenId id) {
      return token.empty() || id == config_.unknown ||
             (config_.byte_fallback && fallback_byte(token));
    };
    if (opaque(a, left) || opaque(b, right)) {
      cuts_ = false;
      continue;
    }
    std::size_t last = previous_utf8(a, a.size()), first = 0;
    const TokenId before = symbol_of(next_utf8(a, last));
    const TokenId after = symbol_of(next_utf8(b, first));
    if (before != kNone && after != kNone) {
      neighbours_->set({before, after, 0, 0});
    }
  }
}

TokenId BpeModel::symbol_at(std::string_view piece, std::size_t& at) const {
  const auto byte = static_cast<unsigned char>(piece[at]);
  if (config_.byte_level || byte < 0x80) {
    ++at;
    return byte_symbols_[byte];
  }
  const auto found = character_symbols_.find(next_utf8(piece, at));
  return found == character_symbols_.end() ? kNone : found->second;
}

void BpeModel::encode(std::string_view piece, Scratch& scratch,
                      std::vector<TokenId>& ids) const {
  if (piece.empty()) return;
  if (config_.ignore_merges) {
    const auto whole = pieces_.find(std::string(piece));
    if (whole != pieces_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  if (!cuts_) {
    encode_part(piece, scratch, ids);
    return;
  }
  std::size_t begin = 0, at = 0;
  TokenId before = symbol_at(piece, at);
  while (at < piece.size()) {
    const std::size_t here = at;
    const TokenId symbol = symbol_at(piece, at);
    const bool joined = before == kNone || symbol == kNone
                            ? before == symbol  // unknown ones may be fused
                            : neighbours_->find(before, symbol) != nullptr;
    if (!joined) {
      encode_part(piece.substr(begin, here - begin), scratch, ids);
      begin = here;
    }
    before = symbol;
  }
  encode_part(piece.substr(begin), scratch, ids);
}

void BpeModel::encode_part(std::string_view part, Scratch& scratch,
                           std::vector<TokenId>& ids) const {
  constexpr std::size_t kLongestCached = 256;    // bytes
  constexpr std::size_t kMostCached = 1u << 18;  // words
  Scratch::State& state = *scratch.state_;
  const auto found = state.known.find(part);
  if (found != state.known.end()) {
    const auto begin = state.known_ids.begin() +
                       static_cast<std::ptrdiff_t>(found->second.begin);
    ids.insert(ids.end(), begin,
               begin + static_cast<std::ptrdiff_t>(found->second.size));
    return;
  }
  read_symbols(part, state.symbols);
  merge(scratch);
  ids.insert(ids.end(), state.symbols.begin(), state.symbols.end());
  if (part.size() > kLongestCached || state.known.size() >= kMostCached) return;
  state.known.emplace(part, Scratch::State::Range{state.known_ids.size(),
                                                  state.symbols.size()});
  state.known_ids.insert(state.known_ids.end(), state.symbols.begin(),
                         state.symbols.end());
}

// The token of the character [begin, end) of `part`, or kNone; `spelling` becomes
// what it is in the vocabulary.
TokenId BpeModel::affixed_symbol(std::string_view part, std::size_t begin,
                                 std::size_t end, std::string& spelling) const {
  spelling.clear();
  if (begin != 0) spelling += config_.inner_prefix;
  spelling += part.substr(begin, end - begin);
  if (end == part.size()) spelling += config_.end_suffix;
  const auto found = affixed_.find(spelling);
  return found == affixed_.end() ? kNone : found->second;
}

void BpeModel::read_symbols(std::string_view part,
                            std::vector<TokenId>& symbols) const {
  symbols.clear();
  bool after_unknown = false;
  std::string spelling;
  for (std::size_t at = 0; at < part.size();) {
    const std::size_t begin = at;
    TokenId symbol = symbol_at(part, at);
    std::string_view character = part.substr(begin, at - begin);
    if (!affixed_.empty()) {
      symbol = affixed_symbol(part, begin, at, spelling);
      character = spelling;
    }
    if (symbol == kNone) {
      append_unknown(character, after_unknown, symbols);
    } else {
      symbols.push_back(symbol);
      after_unknown = false;
    }
  }
}

void BpeModel::append_unknown(std::string_view character, bool& after_unknown,
                              std::vector<TokenId>& symbols) const {
  const auto fallback = [&](char c) {
    return fallback_symbols_[static_cast<unsigned char>(c)];
  };
  if (config_.byte_fallback &&
      std::all_of(character.begin(), character.end(),
                  [&](char c) { return fallback(c) != kNone; })) {
    for (const char c : character) symbols.push_back(fallback(c));
    after_unknown = false;
    return;
  }
  if (!config_.unknown) {
    fail(ErrorCode::kInvalidInput,
         "{}: no token for '{}', and no token for what is unknown",
         config_.origin, replace_invalid_utf8(character));
  }
  if (!after_unknown || !config_.fuse_unknown) {
    symbols.push_back(*config_.unknown);
  }
  after_unknown = true;
}

void BpeModel::merge(Scratch& scratch) const {
  std::vector<TokenId>& symbols = scratch.state_->symbols;
  std::vector<std::uint32_t>& previous = scratch.state_->previous;
  std::vector<std::uint32_t>& next = scratch.state_->next;
  auto& heap = scratch.state_->heap;
  if (symbols.size() < 2) return;
  if (symbols.size() >= kNone) {
    fail(ErrorCode::kInvalidInput, "{}: a piece of text is too long",
         config_.origin);
  }
  const auto size = static_cast<std::uint32_t>(symbols.size());
  previous.resize(size);
  next.resize(size);
  heap.clear();
  using Candidate = Scratch::State::Candidate;
  const auto candidate = [&](std::uint32_t at) -> std::optional<Candidate> {
    const TokenId left = symbols[at], right = symbols[next[at]];
    const auto* entry = merges_->find(left, right);
    if (!entry) return std::nullopt;
    return Candidate{entry->rank, at, left, right, entry->result};
  };
  const auto push = [&](std::uint32_t at) {
    if (const auto found = candidate(at)) {
      heap.push_back(*found);
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  };
  for (std::uint32_t i = 0; i < size; ++i) {
    previous[i] = i - 1;  // of the first never read
    next[i] = i + 1;      // `size`: the end
  }
  for (std::uint32_t i = 0; i + 1 < size; ++i) {
    if (const auto found = candidate(i)) heap.push_back(*found);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const Candidate best = heap.back();
    heap.pop_back();
    const std::uint32_t gone = next[best.at];
    if (symbols[best.at] != best.left || gone == size ||
        symbols[gone] != best.right) {
      continue;
    }
    symbols[best.at] = best.result;
    symbols[gone] = kNone;
    next[best.at] = next[gone];
    if (next[gone] != size) previous[next[gone]] = best.at;
    if (best.at != 0) push(previous[best.at]);
    if (next[best.at] != size) push(best.at);
  }
  std::erase(symbols, kNone);
}

}  // namespace llmpress
