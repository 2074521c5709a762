// Adapters other than LoRA: read back as written, and refused where broken.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "formats/adapters/adapter_folder.h"
#include "formats/adapters/bottleneck_adapter.h"
#include "formats/adapters/difference_adapter.h"
#include "formats/adapters/virtual_tokens.h"
#include "formats/containers/typed_tensors.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

MatrixF ramp(std::size_t rows, std::size_t cols) {
  MatrixF X(rows, cols);
  for (std::size_t i = 0; i < X.size(); ++i) {
    X.data()[i] = static_cast<float>(i) / 4 - 1;
  }
  return X;
}

std::vector<float> numbers(const MatrixF& X) {
  return {X.data().begin(), X.data().end()};
}

class OwnFormats : public testing::Test {
 protected:
  std::filesystem::path folder(const std::string& name) const {
    return directory_.path() / name;
  }
  void write(const std::string& name, const std::string& config,
             const std::vector<NamedTensor>& tensors) const {
    write_adapter_folder(folder(name), config, tensors, {});
  }
  static void expect_refused(const std::function<void()>& read,
                             const std::string& wanted) {
    try {
      read();
      ADD_FAILURE() << "accepted; wanted " << wanted;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(wanted), std::string::npos)
          << error.what();
    }
  }

  TemporaryDirectory directory_;
};

NamedTensor floats(const std::string& name, std::vector<std::size_t> shape) {
  std::size_t n = 1;
  for (const std::size_t d : shape) n *= d;
  return float_tensor(name, DType::kF32, std::move(shape),
                      std::vector<float>(n, 0.5f));
}

TEST_F(OwnFormats, ReadVirtualTokensAsTheyWereWritten) {
  for (const AdapterFormat format :
       {AdapterFormat::kPrefix, AdapterFormat::kPrompt}) {
    const bool prefix = format == AdapterFormat::kPrefix;
    const VirtualTokens tokens{.format = format,
                               .rows = ramp(3, prefix ? 16 : 4),
                               .layers = 2,
                               .heads = 2,
                               .width = 4};
    const auto to = folder(prefix ? "prefix" : "prompt");
    write_virtual_tokens(to, tokens, "base", {});
    EXPECT_EQ(read_adapter_format(to), format);
    const VirtualTokens read = read_virtual_tokens(to);
    EXPECT_EQ(numbers(read.rows), numbers(tokens.rows));
    EXPECT_EQ(read.layers, 2u);
    EXPECT_EQ(read.heads, 2u);
    EXPECT_EQ(read.width, 4u);
    if (!prefix) continue;
    // Keys of layer 0, values of layer 0, keys of layer 1, ...
    const MatrixF keys = prefix_part(read, 1, PrefixPart::kKeys);
    EXPECT_EQ(keys(2, 0), tokens.rows(2, 8));
    VirtualTokens copy = read;
    copy.rows = MatrixF(3, 16);
    for (std::size_t layer = 0; layer < 2; ++layer) {
      for (const PrefixPart part : {PrefixPart::kKeys, PrefixPart::kValues}) {
        put_prefix_part(prefix_part(read, layer, part).view(), layer, part,
                        copy);
      }
    }
    EXPECT_EQ(numbers(copy.rows), numbers(read.rows));
  }
}

TEST_F(OwnFormats, RefuseVirtualTokensOfAnotherShape) {
  const auto config = [](const std::string& more) {
    return R"({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3,
               "num_layers": 2, "num_attention_heads": 2, "token_dim": 4)" +
           more + "}";
  };
  const auto read = [&] { (void)read_virtual_tokens(folder("a")); };
  write("a", config(""), {floats("prompt_embeddings", {3, 12})});
  expect_refused(read, "wanted [3, 16]");
  write("a", config(""), {floats("other", {3, 16})});
  expect_refused(read, "prompt_embeddings");
  write("a", config(R"(, "num_transformer_submodules": 2)"),
        {floats("prompt_embeddings", {3, 16})});
  expect_refused(read, "encoder");
  write("a", R"({"peft_type": "PREFIX_TUNING"})",
        {floats("prompt_embeddings", {3, 16})});
  expect_refused(read, "num_virtual_tokens");
  write("a", R"({"peft_type": "IA3"})", {floats("x", {1})});
  expect_refused([&] { (void)read_adapter_format(folder("a")); },
                 "found 'IA3'");
}

std::map<std::string, PeftModule> one_bottleneck() {
  std::map<std::string, PeftModule> modules;
  modules["m.0.o"].bottleneck = PeftBottleneck{.down = ramp(2, 5),
                                               .up = ramp(5, 2),
                                               .down_bias = {1, 2},
                                               .up_bias = {1, 2, 3, 4, 5},
                                               .activation = "gelu"};
  return modules;
}

TEST_F(OwnFormats, ReadBottlenecksAsTheyWereWritten) {
  write_bottleneck_adapter(folder("b"), one_bottleneck(), "base", {});
  const PeftAdapter read = read_bottleneck_adapter(folder("b"));
  ASSERT_EQ(read.modules.size(), 1u);
  const PeftBottleneck& found = *read.modules.at("m.0.o").bottleneck;
  const PeftBottleneck wanted = *one_bottleneck().at("m.0.o").bottleneck;
  EXPECT_EQ(numbers(found.down), numbers(wanted.down));
  EXPECT_EQ(numbers(found.up), numbers(wanted.up));
  EXPECT_EQ(found.down_bias, wanted.down_bias);
  EXPECT_EQ(found.up_bias, wanted.up_bias);
  EXPECT_EQ(found.activation, "gelu");
}

TEST_F(OwnFormats, RefuseBottlenecksInParts) {
  const std::string config =
      R"({"peft_type": "BOTTLENECK", "bottleneck_size": 2,
          "non_linearity": "relu"})";
  const std::string path = "base_model.model.o.adapter_";
  const std::vector<NamedTensor> whole{
      floats(path + "down.weight", {2, 5}), floats(path + "down.bias", {2}),
      floats(path + "up.weight", {5, 2}), floats(path + "up.bias", {5})};
  const auto read = [&] { (void)read_bottleneck_adapter(folder("b")); };
  write("b", config, whole);
  EXPECT_NO_THROW(read());
  for (std::size_t missing = 0; missing < whole.size(); ++missing) {
    auto tensors = whole;
    tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(missing));
    write("b", config, tensors);
    expect_refused(read, missing == 0 ? "4 tensors each" : "adapter_");
  }
  auto tensors = whole;
  tensors[2] = floats(path + "up.weight", {2, 5});
  write("b", config, tensors);
  expect_refused(read, "wanted [5, 2]");
  tensors = whole;
  tensors.push_back(floats("base_model.model.o.lora_A.weight", {2, 5}));
  write("b", config, tensors);
  expect_refused(read, "no part of a bottleneck");
}

TEST_F(OwnFormats, ReadDifferencesAsTheyWereWritten) {
  std::map<std::string, PeftModule> modules;
  modules["m.0.q"].difference = {
      .rows = 3, .cols = 4, .indices = {0, 7, 11}, .values = {1, -2, 0.5f}};
  modules["m.0.k"].difference = {.rows = 2, .cols = 2};
  write_difference_adapter(folder("d"), modules, "base", {});
  const PeftAdapter read = read_difference_adapter(folder("d"));
  ASSERT_EQ(read.modules.size(), 2u);
  EXPECT_EQ(read.modules.at("m.0.q").difference,
            modules.at("m.0.q").difference);
  EXPECT_EQ(read.modules.at("m.0.k").difference,
            modules.at("m.0.k").difference);
}

TEST_F(OwnFormats, RefuseDifferencesThatAreNone) {
  const std::string path = "base_model.model.q.difference.";
  const auto read = [&] { (void)read_difference_adapter(folder("d")); };
  const auto of = [&](const std::vector<std::int64_t>& shape,
                      const std::vector<std::uint32_t>& indices,
                      const std::vector<float>& values) {
    write("d", R"({"peft_type": "SPARSE_DIFFERENCE"})",
          {tensor_of(path + "shape", DType::kI64, {shape.size()}, shape),
           tensor_of(path + "indices", DType::kU32, {indices.size()}, indices),
           tensor_of(path + "values", DType::kF32, {values.size()}, values)});
  };
  of({2, 3}, {1, 5}, {1, 2});
  EXPECT_NO_THROW(read());
  of({2, 3}, {1, 6}, {1, 2});
  expect_refused(read, "index 1 is 6: wanted ascending, below 6");
  of({2, 3}, {3, 3}, {1, 2});
  expect_refused(read, "index 1 is 3");
  of({2, 3}, {3, 1}, {1, 2});
  expect_refused(read, "ascending");
  of({2, 3}, {1, 5}, {1});
  expect_refused(read, "1 values for 2 indices");
  of({2, 3}, {1}, {std::numeric_limits<float>::infinity()});
  expect_refused(read, "not finite");
  of({2, -3}, {1}, {1});
  expect_refused(read, "two sizes");
  of({2}, {1}, {1});
  expect_refused(read, "two sizes");
  write("d", R"({"peft_type": "SPARSE_DIFFERENCE"})",
        {floats("base_model.model.q.weight", {2, 3})});
  expect_refused(read, "3 tensors each");
}

}  // namespace
}  // namespace llmpress
