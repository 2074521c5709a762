#include "recipes/yaml_tree.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace llmpress {
namespace {

std::string refusal_of_yaml(const std::string& text) {
  try {
    parse_yaml(text, "r.yaml");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "";
}

std::string set_refusal(YamlNode root, const std::string& assignment) {
  try {
    set_in_tree(root, assignment);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(YamlTree, KeepsKeysValuesAndTheirPositions) {
  const YamlNode root = parse_yaml("a: 1\nb:\n  - x: \"2\"\n", "r.yaml");
  ASSERT_EQ(root.kind, YamlNode::Kind::kMap);
  EXPECT_EQ(root.find("a")->scalar, "1");
  EXPECT_FALSE(root.find("a")->quoted);
  const YamlNode& x = *root.find("b")->items.at(0).find("x");
  EXPECT_EQ(x.scalar, "2");
  EXPECT_TRUE(x.quoted);
  EXPECT_EQ(x.position.to_string(), "r.yaml:3:8");
  EXPECT_EQ(root.find("b")->items[0].keys[0].position.to_string(),
            "r.yaml:3:5");
}

TEST(YamlTree, RefusesTextThatIsNotOneYamlDocument) {
  EXPECT_EQ(refusal_of_yaml("a: [1, 2\n").substr(0, 9), "r.yaml:2:");
  for (const char* text : {"a: 1\n---\nb: 2\n", ", a: 1\n"}) {
    EXPECT_NE(refusal_of_yaml(text).find("second document"), std::string::npos)
        << text << ": " << refusal_of_yaml(text);
  }
  EXPECT_NE(refusal_of_yaml("a: 1\n}"), "");
  EXPECT_EQ(refusal_of_yaml("---\na: 1\n...\n"), "");
}

TEST(YamlTree, RefusesAKeyGivenTwice) {
  EXPECT_EQ(refusal_of_yaml("a: 1\nb: 2\na: 3\n"),
            "r.yaml:3:1: key 'a' is given twice; first at line 1");
}

TEST(YamlTree, RefusesTagsOfOtherLanguages) {
  EXPECT_EQ(refusal_of_yaml("a: !!python/tuple [1]\n"),
            "r.yaml:1:4: tag 'tag:yaml.org,2002:python/tuple' is not "
            "supported");
  EXPECT_NE(refusal_of_yaml("a: !mine 1\n"), "");
}

TEST(YamlTree, RefusesAliasesThatGrowWithoutBound) {
  std::ostringstream text;
  text << "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    text << "a" << i << ": &a" << i << " [";
    for (int k = 0; k < 9; ++k) text << "*a" << i - 1 << ", ";
    text << "*a" << i - 1 << "]\n";
  }
  EXPECT_NE(refusal_of_yaml(text.str()).find("too many"), std::string::npos);
  EXPECT_NE(refusal_of_yaml("a: &a [*a]\n").find("inside what it stands for"),
            std::string::npos);
  EXPECT_NE(refusal_of_yaml("a: *b\n"), "");
}

TEST(YamlTree, RefusesDeepNestingAndLongTexts) {
  EXPECT_NE(refusal_of_yaml(std::string(200, '[') + std::string(200, ']')), "");
  EXPECT_NE(refusal_of_yaml("a: " + std::string(std::size_t{5} << 20, 'x')),
            "");
}

TEST(YamlTree, AnOverrideReplacesOneValueOfAnAliasedMap) {
  YamlNode root = parse_yaml("a: &m {x: 1}\nb: *m\n", "r.yaml");
  set_in_tree(root, "b.x=2");
  EXPECT_EQ(root.find("a")->find("x")->scalar, "1");
  EXPECT_EQ(root.find("b")->find("x")->scalar, "2");
}

TEST(YamlTree, AnOverrideMakesMapsAndIndexesLists) {
  YamlNode root = parse_yaml("l: [{x: 1}, {x: 2}]\n", "r.yaml");
  set_in_tree(root, "l.1.x=[7, 8]");
  EXPECT_EQ(root.find("l")->items[1].find("x")->items[1].scalar, "8");
  set_in_tree(root, "m.n.o=a=b");
  EXPECT_EQ(root.find("m")->find("n")->find("o")->scalar, "a=b");
  EXPECT_EQ(root.find("m")->find("n")->find("o")->position.to_string(),
            "--set m.n.o=a=b");
}

TEST(YamlTree, AnOverrideOfAPathThatCannotBeIsRefused) {
  const YamlNode root = parse_yaml("l: [1]\ns: word\n", "r.yaml");
  EXPECT_EQ(set_refusal(root, "l.1=2"),
            "--set l.1=2: no entry 1 in a list of 1");
  EXPECT_EQ(set_refusal(root, "l.x=2"),
            "--set l.x=2: 'x' must be the index of a list entry");
  EXPECT_EQ(set_refusal(root, "l.-1=2").substr(0, 14), "--set l.-1=2: ");
  EXPECT_NE(set_refusal(root, "s.x=2").find("which is a value"),
            std::string::npos);
  EXPECT_NE(set_refusal(root, "a..b=2").find("empty key"), std::string::npos);
  EXPECT_NE(set_refusal(root, "a").find("key.key=value"), std::string::npos);
  EXPECT_NE(set_refusal(root, "=1"), "");
  EXPECT_NE(set_refusal(root, "a=[1"), "");
}

}  // namespace
}  // namespace llmpress
