#include "formats/containers/pickle.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/printable.h"
#include "formats/containers/pickle_opcodes.h"

namespace llmpress {
namespace {

constexpr unsigned kNewestProtocol = 5;
constexpr std::string_view kOrderedDict = "collections.OrderedDict";

using Op = PickleOpcode;

class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> octets,
                std::span<const std::string_view> globals,
                const std::string& where)
      : octets_(octets.first(std::min(octets.size(), kMaxPickleBytes))),
        cut_(octets.size() > kMaxPickleBytes),
        globals_(globals),
        where_(where) {}

  Pickle run() {
    while (step()) {
    }
    pickle_.root = pop();
    pickle_.bytes = at_;
    return std::move(pickle_);
  }

 private:
  [[noreturn]] void refuse(ErrorCode code, const std::string& what) const {
    fail(code, "{}: pickle, octet {}: {}", where_, opcode_at_, what);
  }
  [[noreturn]] void corrupt(const std::string& what) const {
    refuse(ErrorCode::kCorruptFile, what);
  }

  // --- its octets

  std::span<const std::byte> take(std::uint64_t size) {
    if (size > octets_.size() - at_) {
      if (cut_) {
        refuse(ErrorCode::kUnsupported,
               formatted("goes beyond {} octets", kMaxPickleBytes));
      }
      corrupt("is cut off");
    }
    const auto taken = octets_.subspan(at_, size);
    at_ += size;
    return taken;
  }
  template <class T>
  T number() {
    T value{};
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view text(std::uint64_t size) {
    const auto taken = take(size);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }
  std::string_view line() {
    const std::size_t begin = at_;
    while (take(1)[0] != std::byte{'\n'}) {
    }
    return {reinterpret_cast<const char*>(octets_.data()) + begin,
            at_ - 1 - begin};
  }

  // --- its stack

  void check_count(std::size_t count) const {
    if (count < kMaxPickleValues) return;
    refuse(ErrorCode::kUnsupported,
           formatted("makes more than {} values", kMaxPickleValues));
  }
  PickleValue& push(PickleKind kind) {
    check_count(pickle_.values.size());
    stack_.push_back(static_cast<PickleRef>(pickle_.values.size()));
    pickle_.values.push_back({.kind = kind, .offset = opcode_at_});
    return pickle_.values.back();
  }
  void push_integer(std::int64_t value,
                    PickleKind kind = PickleKind::kInteger) {
    push(kind).integer = value;
  }
  void push_text(PickleKind kind, std::string_view value) {
    push(kind).text = value;
  }
  PickleRef top() const {
    const std::size_t bottom = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() <= bottom) corrupt("takes a value that is not there");
    return stack_.back();
  }
  PickleRef pop() {
    const PickleRef value = top();
    stack_.pop_back();
    return value;
  }
  std::vector<PickleRef> pop_mark() {
    if (marks_.empty()) corrupt("ends a group that did not begin");
    const auto begin =
        stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<PickleRef> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }
  std::vector<PickleRef> pop_last(std::size_t count) {
    std::vector<PickleRef> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    return items;
  }
  void push_group(PickleKind kind, std::vector<PickleRef> items) {
    if (kind == PickleKind::kDict && items.size() % 2 != 0) {
      corrupt("has a key without a value");
    }
    push(kind).items = std::move(items);
  }
  void extend_top(PickleKind kind, std::vector<PickleRef> items) {
    PickleValue& value = pickle_.values[top()];
    if (value.kind != kind) {
      corrupt(kind == PickleKind::kDict ? "sets items of what is no dict"
                                        : "appends to what is no list");
    }
    if (kind == PickleKind::kDict && items.size() % 2 != 0) {
      corrupt("has a key without a value");
    }
    value.items.insert(value.items.end(), items.begin(), items.end());
  }

  void remember(std::uint64_t slot) {
    check_count(memo_.size());
    memo_[slot] = top();
  }
  void recall(std::uint64_t slot) {
    const auto found = memo_.find(slot);
    if (found == memo_.end()) {
      corrupt(formatted("recalls {}, which was not remembered", slot));
    }
    stack_.push_back(found->second);
  }

  // --- what it would run

  void name_global(std::string_view module, std::string_view name) {
    for (const std::string_view known : globals_) {
      if (known.size() == module.size() + 1 + name.size() &&
          known.starts_with(module) && known[module.size()] == '.' &&
          known.ends_with(name)) {
        push_text(PickleKind::kGlobal, known);
        return;
      }
    }
    refuse(ErrorCode::kUnsupported,
           formatted("names '{}.{}', which no tensor needs; nothing of it was "
                     "run",
                     printable(module.substr(0, 200)),
                     printable(name.substr(0, 200))));
  }
  void name_global_on_stack() {
    const PickleRef name = pop(), module = pop();
    const PickleValue& a = pickle_[module];
    const PickleValue& b = pickle_[name];
    if (a.kind != PickleKind::kText || b.kind != PickleKind::kText) {
      corrupt("names a global by what is no text");
    }
    name_global(a.text, b.text);
  }
  void call() {
    const PickleRef arguments = pop(), callee = pop();
    if (pickle_[callee].kind != PickleKind::kGlobal ||
        pickle_[arguments].kind != PickleKind::kTuple) {
      corrupt("calls what is no global");
    }
    if (pickle_[callee].text != kOrderedDict) {
      push_group(PickleKind::kCall, {callee, arguments});
    } else if (pickle_[arguments].items.empty()) {
      push(PickleKind::kDict);
    } else {
      refuse(ErrorCode::kUnsupported, "makes an OrderedDict of something");
    }
  }
  // Attributes of a state dict (_metadata: versions of modules) say nothing of
  // its tensors.
  void set_attributes() {
    (void)pop();
    if (pickle_[top()].kind != PickleKind::kDict) {
      refuse(ErrorCode::kUnsupported, "sets attributes of what is no dict");
    }
  }

  void push_long(std::uint64_t size) {
    const std::string_view octets = text(size);
    if (size > sizeof(std::int64_t)) {
      push_text(PickleKind::kBytes, octets);
      return;
    }
    const bool negative =
        size != 0 && (static_cast<unsigned char>(octets.back()) & 0x80) != 0;
    std::int64_t value = negative ? -1 : 0;
    if (size != 0) std::memcpy(&value, octets.data(), size);
    push_integer(value);
  }

  // One opcode; false: it was the last.
  bool step() {
    opcode_at_ = at_;
    const auto opcode = static_cast<Op>(take(1)[0]);
    if (opcode == Op::kStop) return false;
    if (frame(opcode) || value(opcode) || group(opcode) || reference(opcode)) {
      return true;
    }
    refuse(ErrorCode::kUnsupported,
           formatted("opcode {:#04x} is not one of plain values",
                     static_cast<unsigned>(opcode)));
  }

  bool frame(Op opcode) {
    switch (opcode) {
      case Op::kProtocol:
        if (const auto version = number<std::uint8_t>();
            version < 2 || version > kNewestProtocol) {
          refuse(ErrorCode::kUnsupported,
                 formatted("is of protocol {}, wanted 2 to {}", version,
                           kNewestProtocol));
        }
        return true;
      case Op::kFrame:
        (void)number<std::uint64_t>();
        return true;
      case Op::kMark:
        marks_.push_back(stack_.size());
        return true;
      case Op::kPop:
        // pickle.py lets it take a mark, too.
        if (!marks_.empty() && marks_.back() == stack_.size()) {
          marks_.pop_back();
        } else {
          (void)pop();
        }
        return true;
      case Op::kPopMark:
        (void)pop_mark();
        return true;
      case Op::kDup:
        stack_.push_back(top());
        return true;
      default:
        return false;
    }
  }

  bool value(Op opcode) {
    switch (opcode) {
      case Op::kNone:
        push(PickleKind::kNone);
        return true;
      case Op::kTrue:
      case Op::kFalse:
        push_integer(opcode == Op::kTrue ? 1 : 0, PickleKind::kBool);
        return true;
      case Op::kBinInt:
        push_integer(number<std::int32_t>());
        return true;
      case Op::kBinInt1:
        push_integer(number<std::uint8_t>());
        return true;
      case Op::kBinInt2:
        push_integer(number<std::uint16_t>());
        return true;
      case Op::kLong1:
        push_long(number<std::uint8_t>());
        return true;
      case Op::kLong4:
        push_long(number<std::uint32_t>());
        return true;
      case Op::kBinFloat:
        (void)take(sizeof(double));
        push(PickleKind::kReal);
        return true;
      case Op::kShortBinUnicode:
      case Op::kShortBinString:
        push_text(PickleKind::kText, text(number<std::uint8_t>()));
        return true;
      case Op::kBinUnicode:
      case Op::kBinString:
        push_text(PickleKind::kText, text(number<std::uint32_t>()));
        return true;
      case Op::kBinUnicode8:
        push_text(PickleKind::kText, text(number<std::uint64_t>()));
        return true;
      case Op::kShortBinBytes:
        push_text(PickleKind::kBytes, text(number<std::uint8_t>()));
        return true;
      case Op::kBinBytes:
        push_text(PickleKind::kBytes, text(number<std::uint32_t>()));
        return true;
      case Op::kBinBytes8:
        push_text(PickleKind::kBytes, text(number<std::uint64_t>()));
        return true;
      default:
        return false;
    }
  }

  bool group(Op opcode) {
    switch (opcode) {
      case Op::kEmptyDict:
        push(PickleKind::kDict);
        return true;
      case Op::kEmptyList:
      case Op::kEmptySet:
        push(PickleKind::kList);
        return true;
      case Op::kEmptyTuple:
        push(PickleKind::kTuple);
        return true;
      case Op::kMakeDict:
        push_group(PickleKind::kDict, pop_mark());
        return true;
      case Op::kMakeList:
        push_group(PickleKind::kList, pop_mark());
        return true;
      case Op::kMakeTuple:
      case Op::kFrozenSet:
        push_group(PickleKind::kTuple, pop_mark());
        return true;
      case Op::kTuple1:
      case Op::kTuple2:
      case Op::kTuple3:
        push_group(PickleKind::kTuple,
                   pop_last(static_cast<unsigned>(opcode) -
                            static_cast<unsigned>(Op::kTuple1) + 1));
        return true;
      case Op::kAppend:
        extend_top(PickleKind::kList, pop_last(1));
        return true;
      case Op::kAppends:
      case Op::kAddItems:
        extend_top(PickleKind::kList, pop_mark());
        return true;
      case Op::kSetItem:
        extend_top(PickleKind::kDict, pop_last(2));
        return true;
      case Op::kSetItems:
        extend_top(PickleKind::kDict, pop_mark());
        return true;
      default:
        return false;
    }
  }

  bool reference(Op opcode) {
    switch (opcode) {
      case Op::kBinGet:
        recall(number<std::uint8_t>());
        return true;
      case Op::kLongBinGet:
        recall(number<std::uint32_t>());
        return true;
      case Op::kBinPut:
        remember(number<std::uint8_t>());
        return true;
      case Op::kLongBinPut:
        remember(number<std::uint32_t>());
        return true;
      case Op::kMemoize:
        remember(memo_.size());
        return true;
      case Op::kGlobal: {
        const std::string_view module = line();
        name_global(module, line());
        return true;
      }
      case Op::kStackGlobal:
        name_global_on_stack();
        return true;
      case Op::kReduce:
      case Op::kNewObject:
        call();
        return true;
      case Op::kBuild:
        set_attributes();
        return true;
      case Op::kBinPersId:
        push_group(PickleKind::kPersistent, pop_last(1));
        return true;
      default:
        return false;
    }
  }

  std::span<const std::byte> octets_;
  bool cut_;
  std::span<const std::string_view> globals_;
  const std::string& where_;
  std::size_t at_ = 0, opcode_at_ = 0;
  Pickle pickle_{};
  std::vector<PickleRef> stack_{};
  std::vector<std::size_t> marks_{};  // sizes of the stack
  std::unordered_map<std::uint64_t, PickleRef> memo_{};
};

}  // namespace

Pickle read_pickle(std::span<const std::byte> octets,
                   std::span<const std::string_view> globals,
                   const std::string& where) {
  return PickleMachine(octets, globals, where).run();
}

}  // namespace llmpress
