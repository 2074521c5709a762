#include "formats/containers/pickle.h"

#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "compress/core/error.h"
#include "tests/formats/containers/torch_writer.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

using namespace testing;
using namespace std::string_literals;

constexpr std::array<std::string_view, 2> kGlobals{"collections.OrderedDict",
                                                   "torch.Size"};

Pickle read(const std::string& octets) {
  return read_pickle(std::as_bytes(std::span(octets)), kGlobals, "p");
}

struct Refusal {
  ErrorCode code;
  std::string what;
};
Refusal refusal(const std::string& octets) {
  try {
    (void)read(octets);
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {ErrorCode::kNumeric, "no error"};
}

TEST(Pickle, ReadsPlainValuesOfProtocolsTwoToFive) {
  // pickle.dumps({'a': (1, -2, None, True), 'b': [300, 1 << 40]}, protocol=2)
  const std::string two =
      "\x80\x02}q\x00(X\x01\x00\x00\x00"
      "aq\x01(K\x01J\xfe\xff\xff\xffN\x88tq\x02X\x01\x00\x00\x00"
      "bq\x03]q\x04(M,\x01\x8a\x06\x00\x00\x00\x00\x00\x01"
      "eu."s;
  // The same with protocol=4.
  const std::string four =
      "\x80\x04\x95\x22\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01"
      "a\x94(K\x01J\xfe\xff\xff\xffN\x88t\x94\x8c\x01"
      "b\x94]\x94(M,\x01\x8a\x06\x00\x00\x00\x00\x00\x01"
      "eu."s;
  for (const std::string& octets : {two, four}) {
    const Pickle pickle = read(octets);
    EXPECT_EQ(pickle.bytes, octets.size());
    const PickleValue& root = pickle[pickle.root];
    ASSERT_EQ(root.kind, PickleKind::kDict);
    ASSERT_EQ(root.items.size(), 4u);
    EXPECT_EQ(pickle[root.items[0]].text, "a");
    const PickleValue& tuple = pickle[root.items[1]];
    ASSERT_EQ(tuple.kind, PickleKind::kTuple);
    ASSERT_EQ(tuple.items.size(), 4u);
    EXPECT_EQ(pickle[tuple.items[0]].integer, 1);
    EXPECT_EQ(pickle[tuple.items[1]].integer, -2);
    EXPECT_EQ(pickle[tuple.items[2]].kind, PickleKind::kNone);
    EXPECT_EQ(pickle[tuple.items[3]].kind, PickleKind::kBool);
    const PickleValue& list = pickle[root.items[3]];
    ASSERT_EQ(list.kind, PickleKind::kList);
    EXPECT_EQ(pickle[list.items[0]].integer, 300);
    EXPECT_EQ(pickle[list.items[1]].integer, std::int64_t{1} << 40);
  }
}

TEST(Pickle, SharesWhatItsMemoRecallsAndEndsWhereItStops) {
  const std::string octets = "\x80\x02]q\x00h\x00h\x00\x86.and more"s;
  const Pickle pickle = read(octets);
  const PickleValue& pair = pickle[pickle.root];
  ASSERT_EQ(pair.items.size(), 2u);
  EXPECT_EQ(pair.items[0], pair.items[1]);
  EXPECT_EQ(octets.substr(pickle.bytes), "and more");
}

TEST(Pickle, WritesCallsDownAndMakesOrderedDictsAlone) {
  const Pickle pickle = read(pickle_of(
      pickle_call("collections", "OrderedDict", {}) + pickle_text("k") +
      pickle_call("torch", "Size", {pickle_sizes({3})}) + "s}b"));
  const PickleValue& dict = pickle[pickle.root];
  ASSERT_EQ(dict.kind, PickleKind::kDict);
  const PickleValue& call = pickle[dict.items[1]];
  ASSERT_EQ(call.kind, PickleKind::kCall);
  EXPECT_EQ(pickle[call.items[0]].text, "torch.Size");
}

// Each would run a command that leaves a file behind.
TEST(Pickle, RefusesWhatWouldRunAndRunsNothing) {
  const TemporaryDirectory tmp;
  const std::string mark = (tmp.path() / "ran").string();
  const std::string command = "touch " + mark;
  struct Case {
    std::string name, opcodes;
  };
  const std::vector<Case> cases{
      {"os.system", pickle_call("os", "system", {pickle_text(command)})},
      {"posix.system", pickle_call("posix", "system", {pickle_text(command)})},
      {"builtins.eval",
       pickle_text("builtins") + pickle_text("eval") + "\x93" +
           pickle_tuple(
               {pickle_text("__import__('os').system('" + command + "')")}) +
           "R"},
      {"subprocess.Popen", pickle_global("subprocess", "Popen") +
                               pickle_tuple({pickle_text(command)}) + "\x81"},
      // Hidden behind names that are known.
      {"torch.Size.__class__",
       pickle_call("torch", "Size.__class__", {pickle_text(command)})},
      {"collections.OrderedDict.fromkeys",
       pickle_call("collections.OrderedDict", "fromkeys", {})},
      {"builtins.getattr",
       pickle_call("builtins", "getattr",
                   {pickle_global("collections", "OrderedDict"),
                    pickle_text("__init__")})}};
  for (const Case& c : cases) {
    const Refusal refused = refusal(pickle_of(c.opcodes));
    EXPECT_EQ(refused.code, ErrorCode::kUnsupported) << c.name;
    EXPECT_NE(refused.what.find("names '" + c.name + "'"), std::string::npos)
        << refused.what;
  }
  // Opcodes that make objects in other ways: INST, OBJ, EXT1, PERSID, and the
  // texts of protocol 0.
  for (const std::string& opcodes :
       {"(ios\nsystem\n"s, "(o"s, "\x82\x01"s, "P1\n"s, "I1\n"s}) {
    EXPECT_NE(refusal(pickle_of(opcodes)).what.find("octet "),
              std::string::npos)
        << opcodes;
  }
  EXPECT_FALSE(std::filesystem::exists(mark));
}

TEST(Pickle, SaysAtWhichOctetWhatIsNamed) {
  EXPECT_EQ(refusal(pickle_of("NN" + pickle_global("os", "system"))).what,
            "p: pickle, octet 4: names 'os.system', which no tensor needs; "
            "nothing of it was run");
}

TEST(Pickle, RefusesOpcodesThatDoNotFitTogether) {
  for (const std::string& opcodes :
       {""s, "t"s, "(N"s + "R", "NR"s, "N)R"s, "NNs"s, "]Na(b"s, "}(Nu"s,
        "h\x07"s, "(0"s, "}NNNs"s, "NN\x93"s, "Q"s, "N}b"s, "(}(b"s,
        pickle_call("collections", "OrderedDict", {"N"})}) {
    const Refusal refused = refusal(pickle_of(opcodes));
    EXPECT_TRUE(refused.code == ErrorCode::kCorruptFile ||
                refused.code == ErrorCode::kUnsupported)
        << opcodes << ": " << refused.what;
  }
  EXPECT_EQ(refusal("\x80\x01N."s).code, ErrorCode::kUnsupported);
  EXPECT_EQ(refusal("\x80\x06N."s).code, ErrorCode::kUnsupported);
}

TEST(Pickle, RefusesEveryCut) {
  const std::string whole = pickle_of(pickle_dict(
      {{"a", torch_storage("FloatStorage", "0", 1).substr(0, 1) + "t"},
       {"b", "\x8b\x08\x00\x00\x00"s + std::string(8, '\1')},
       {"c", pickle_call("torch", "Size", {pickle_sizes({2, 3})})},
       {"d", "G" + std::string(8, 'x')}}));
  (void)read(whole);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(refusal(whole.substr(0, size)).code, ErrorCode::kCorruptFile)
        << size;
  }
}

// A thousand lists, each of ten times the one before: 10^1000 in Python's
// eyes, as many values as opcodes here.
TEST(Pickle, IsAsLargeAsItsOctetsWhateverItsMemoSays) {
  std::string opcodes = "]";
  for (int i = 0; i < 1000; ++i)
    opcodes += "2222222222(lr" + octets(i) + "0j" + octets(i);
  const Refusal refused = refusal(pickle_of(opcodes));
  EXPECT_EQ(refused.what, "no error");
  std::string deep = std::string(100000, '(') + std::string(100000, 't');
  EXPECT_EQ(refusal(pickle_of(deep)).what, "no error");
}

TEST(Pickle, RefusesMoreThanAModelNeeds) {
  const std::string values(kMaxPickleValues + 1, 'N');
  const std::string marks(kMaxPickleValues + 1, '\x94');
  for (const std::string& opcodes : {values, "N" + marks}) {
    const Refusal refused = refusal(pickle_of(opcodes));
    EXPECT_EQ(refused.code, ErrorCode::kUnsupported);
    EXPECT_NE(refused.what.find("more than 4194304 values"), std::string::npos)
        << refused.what;
  }
}

}  // namespace
}  // namespace llmpress
