// One model in every form that is read gives the same numbers, to the bit.
#include "tests/compress/model/model_forms.h"

#include <gtest/gtest.h>

#include <cstring>

#include "compress/core/error.h"
#include "compress/model/model_files.h"
#include "compress/model/model_source.h"
#include "formats/checkpoints/carried_files.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

using namespace testing;
namespace fs = std::filesystem;

TinyShape shape_of(bool tied) {
  // Meta's width of a hidden size of 24: 64.
  TinyShape shape{.ffn = 64, .vocabulary = 32, .tied = tied};
  return shape;
}

std::vector<float> logits_of(const fs::path& path) {
  const ModelSource model = open_model(path);
  ThreadPool pool(2);
  const Decoder decoder(*model.checkpoint);
  const auto tokens = random_tokens(9, model.arch->vocabulary, 5);
  const Segment all{tokens.size(), 0, nullptr};
  const MatrixF hidden = decoder.forward(tokens, {&all, 1}, pool);
  const MatrixF logits = decoder.ends().logits(hidden.view(), pool);
  return {logits.data().begin(), logits.data().end()};
}

class ModelFormsTest : public ::testing::TestWithParam<bool> {
 protected:
  TemporaryDirectory directory_;
  ModelForms forms_{shape_of(GetParam())};
  fs::path at(const char* name) const { return directory_.path() / name; }
};

TEST_P(ModelFormsTest, GiveTheSameLogits) {
  forms_.write_safetensors_folder(at("safetensors"));
  const std::vector<float> expected = logits_of(at("safetensors"));
  ASSERT_FALSE(expected.empty());
  forms_.write_torch_folder(at("torch"));
  forms_.write_torch_shards(at("torch_shards"));
  forms_.write_mistral_folder(at("mistral"));
  forms_.write_mistral_shards(at("mistral_shards"));
  forms_.write_meta_folder(at("meta"), 1, false);
  forms_.write_meta_folder(at("meta_columns"), 2, false);
  forms_.write_meta_folder(at("meta_rows"), 2, true);
  write_octets(at("v0.bin"), forms_.llama2c_file(0));
  write_octets(at("v1.bin"), forms_.llama2c_file(1));
  for (const char* form :
       {"torch", "torch_shards", "mistral", "mistral_shards", "meta",
        "meta_columns", "meta_rows", "v0.bin", "v1.bin"}) {
    EXPECT_EQ(logits_of(at(form)), expected) << form;
  }
}

INSTANTIATE_TEST_SUITE_P(TiedOrNot, ModelFormsTest, ::testing::Bool());

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

#define EXPECT_SAYS(text, part) \
  EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(Consolidated, SaysWhatIsMissingOrUnknown) {
  const TemporaryDirectory tmp;
  const ModelForms forms(shape_of(false));
  const auto said = [&] {
    return message_of([&] { (void)open_model(tmp.path()); });
  };
  forms.write_meta_folder(tmp.path(), 3, true);
  fs::remove(tmp.path() / "consolidated.01.pth");
  EXPECT_SAYS(said(), "consolidated.01.pth is missing");
  fs::remove(tmp.path() / "consolidated.02.pth");
  fs::remove(tmp.path() / "consolidated.00.pth");
  EXPECT_SAYS(said(), "has params.json, but neither");
  TinyTensors tensors = forms.theirs();
  tensors["layers.0.attention.q_norm.weight"] = MatrixF(1, 6);
  const auto put = [&] {
    write_octets(tmp.path() / "consolidated.safetensors",
                 write_safetensors(named_tensors(tensors), {}));
  };
  put();
  EXPECT_SAYS(said(), "'layers.0.attention.q_norm.weight': is no part of");
  tensors.erase("layers.0.attention.q_norm.weight");
  tensors["layers.1.attention.wk.weight"] = MatrixF(3, 24);
  put();
  EXPECT_SAYS(said(), "has shape [3, 24], wanted 2 heads");
}

TEST(Consolidated, RefusesPartsThatDiffer) {
  const TemporaryDirectory tmp;
  const ModelForms forms(shape_of(false));
  forms.write_meta_folder(tmp.path(), 2, true);
  TinyTensors other = forms.theirs();
  const auto said = [&] {
    write_octets(tmp.path() / "consolidated.01.pth",
                 torch_file(named_tensors(other)));
    return message_of([&] { (void)open_model(tmp.path()); });
  };
  EXPECT_SAYS(said(), "its part in consolidated.01.pth is missing or of");
  other = forms.meta_part(1, 2, true);
  EXPECT_EQ(said(), "no error");
  other["unheard.weight"] = MatrixF(2, 2);
  EXPECT_SAYS(said(), "'unheard.weight': is not in consolidated.00.pth");
}

TEST(Llama2c, RefusesOtherLengthsAndVersions) {
  const TemporaryDirectory tmp;
  const ModelForms forms(shape_of(true));
  const fs::path file = tmp.path() / "m.bin";
  const auto said = [&](const std::string& octets_of_file) {
    write_octets(file, octets_of_file);
    return message_of([&] { (void)open_model(file); });
  };
  for (const int version : {0, 1}) {
    const std::string whole = forms.llama2c_file(version);
    EXPECT_EQ(said(whole), "no error");
    EXPECT_SAYS(said(whole + "x"), "a llama2.c checkpoint of these sizes has");
    for (std::size_t size = 0; size < whole.size(); size += 61) {
      EXPECT_NE(said(whole.substr(0, size)), "no error") << size;
    }
  }
  std::string third = forms.llama2c_file(1);
  third[4] = 3;
  EXPECT_SAYS(said(third), "of version 3, wanted 0, 1 or 2");
  std::string layers = forms.llama2c_file(1);
  layers.replace(8 + 8, 4, octets(std::int32_t{1 << 24}));
  EXPECT_SAYS(said(layers), "cannot hold 16777216 layers");
  std::string negative = forms.llama2c_file(1);
  negative.replace(8, 4, octets(std::int32_t{-64}));
  EXPECT_SAYS(said(negative), "does not begin with the sizes");
}

TEST(Llama2c, CarriesItsTokenizerAlongAsAFoldersFiles) {
  const TemporaryDirectory tmp;
  const ModelForms forms(shape_of(true));
  write_octets(tmp.path() / "m.bin", forms.llama2c_file(1));
  EXPECT_TRUE(carried_files(tmp.path() / "m.bin").empty());
  std::string pieces = octets(std::uint32_t{8});
  for (int id = 0; id < 32; ++id) {
    pieces += octets(0.0f) + octets(std::uint32_t{1}) +
              std::string(1, static_cast<char>('A' + id));
  }
  write_octets(tmp.path() / "tokenizer.bin", pieces);
  const auto files = carried_files(tmp.path() / "m.bin");
  ASSERT_EQ(files.size(), 2u);
  EXPECT_TRUE(files.contains("tokenizer_config.json"));
  EXPECT_EQ(open_model(tmp.path() / "m.bin").tokenizer->vocabulary_size(), 32u);
  const auto loaded =
      tokenizer_from_sentencepiece(files.at("tokenizer.model"), {}, "t");
  EXPECT_EQ(loaded->bos_id, 1u);
}

TEST(Consolidated, LeavesItsDescriptionBehind) {
  const TemporaryDirectory tmp;
  const ModelForms forms(shape_of(true));
  forms.write_meta_folder(tmp.path(), 2, true);
  write_octets(tmp.path() / "LICENSE", "x");
  const auto files = carried_files(tmp.path());
  ASSERT_EQ(files.size(), 1u);
  EXPECT_TRUE(files.contains("LICENSE"));
}

TEST(ModelSha256, IsOfTheWeightsThatAreRead) {
  const TemporaryDirectory tmp;
  const ModelForms forms(shape_of(true)), others(shape_of(true), 8);
  ThreadPool pool(2);
  const auto hash = [&](const fs::path& folder) {
    return model_sha256(*open_checkpoint(folder), pool);
  };
  for (const char* name : {"torch", "meta"}) {
    const fs::path folder = tmp.path() / name;
    const auto put = [&](const ModelForms& from) {
      if (name == std::string("torch")) return from.write_torch_folder(folder);
      from.write_meta_folder(folder, 2, true);
    };
    put(forms);
    const std::string before = hash(folder);
    write_octets(folder / "tokenizer_config.json", "{}");
    EXPECT_EQ(hash(folder), before);
    put(others);
    EXPECT_NE(hash(folder), before) << name;
  }
}

// Codes of version 2 times their scales.
TEST(Llama2c, DecodesGroupsOfCodes) {
  const TemporaryDirectory tmp;
  // dim 4, ffn 2, one layer, one head, two tokens, one position; groups of 2.
  std::string file = octets(0x616b3432) + octets(2);
  for (const std::int32_t n : {4, 2, 1, 1, 1, 2, 1}) file += octets(n);
  file += octets(std::uint8_t{1}) + octets(std::int32_t{2});
  file.resize(256, '\0');
  for (int i = 0; i < 12; ++i) file += octets(1.0f);  // three norms
  const auto coded = [&](int count) {
    for (int i = 0; i < count; ++i) file += static_cast<char>(i - 3);
    for (int g = 0; g < count / 2; ++g) {
      file += octets(0.5f * static_cast<float>(g + 1));
    }
  };
  for (const int count : {8, 16, 16, 16, 16, 8, 8, 8}) coded(count);
  write_octets(tmp.path() / "q.bin", file);
  const auto checkpoint = open_checkpoint(tmp.path() / "q.bin");
  const MatrixF E =
      read_matrix(checkpoint->tensors(), "model.embed_tokens.weight");
  const std::vector<float> expected{-1.5, -1, -1, 0, 1.5, 3, 6, 8};
  EXPECT_EQ(std::vector<float>(E.data().begin(), E.data().end()), expected);
  // Rows 0 and 2, 1 and 3 of a head of four turn together here.
  const MatrixF Q = read_matrix(checkpoint->tensors(),
                                "model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(Q(1, 0), 5 * 2.5f);
  EXPECT_EQ(Q(2, 0), 1 * 1.5f);
}

}  // namespace
}  // namespace llmpress
