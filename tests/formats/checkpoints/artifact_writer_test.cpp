#include "formats/checkpoints/artifact_writer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/checkpoints/shard_file.h"
#include "formats/containers/sharded.h"
#include "formats/files/content_hash.h"
#include "tests/compress/core/thread_ranks.h"
#include "tests/formats/linears/sample_linears.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;
using json = nlohmann::json;

const std::string kConfig =
    R"({"model_type":"llama","rms_norm_eps":1e-05,"torch_dtype":"bfloat16",)"
    R"("quantization_config":{"quant_method":"stale"}})";

NamedTensor norm_tensor(const std::string& name = "model.norm.weight") {
  NamedTensor t{.name = name, .dtype = DType::kBF16, .shape = {3}};
  for (const int b : {1, 2, 3, 4, 5, 6}) t.bytes.push_back(std::byte(b));
  return t;
}

using Files = std::map<std::string, std::string>;

std::string name_of(std::size_t k) {
  return formatted("model.layers.{}.mlp.down_proj", k);
}

fs::path extension_for(std::string_view format) {
  return kind_of(find_output_format(format)) == OutputKind::kFolder ? "m"
                                                                    : "m.h5";
}

class EveryOwnFormat : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(ArtifactWriter, EveryOwnFormat,
                         testing::Values("compressed-tensors", "hdf5"),
                         [](const auto& instance) {
                           return instance.param == "hdf5"
                                      ? "Hdf5"
                                      : "CompressedTensors";
                         });

TEST_P(EveryOwnFormat, ReadsBackEveryKindOfLinearAsItWasWritten) {
  const TemporaryDirectory tmp;
  const auto samples = sample_linears();
  const fs::path output = tmp.path() / extension_for(GetParam());
  auto writer = make_artifact_writer({.output = output, .format = GetParam()});
  writer->add_tensor(norm_tensor());
  for (std::size_t k = 0; k < samples.size(); ++k) {
    writer->add_linear(name_of(k), samples[k].linear);
  }
  writer->finish(kConfig);

  const auto model = open_checkpoint(output);
  EXPECT_EQ(model->format(), GetParam());
  EXPECT_NE(model->tensors().find("model.norm.weight"), nullptr);
  for (std::size_t k = 0; k < samples.size(); ++k) {
    ASSERT_TRUE(model->has_linear(name_of(k))) << samples[k].what;
    expect_same_linear(model->read_linear(name_of(k)), samples[k].linear,
                       samples[k].what);
  }
  EXPECT_FALSE(model->has_linear("model.layers.99.mlp.down_proj"));
  EXPECT_THROW(model->read_linear("model.layers.99.mlp.down_proj"), Error);
}

// As a run does with its blocks: written once for as long as it lasts, and from
// there, as they lie in the file, into the artifact.
TEST_P(EveryOwnFormat, TakesLinearsFromWhereTheyWereWrittenBefore) {
  const auto samples = sample_linears();
  const bool folder =
      kind_of(find_output_format(GetParam())) == OutputKind::kFolder;
  for (const std::size_t room : {std::size_t{64}, std::size_t{1} << 16}) {
    const TemporaryDirectory tmp;
    const fs::path passing = tmp.path() / "passing";
    const fs::path direct = tmp.path() / "direct" / extension_for(GetParam());
    const fs::path copied = tmp.path() / "copied" / extension_for(GetParam());
    auto first =
        make_artifact_writer({.output = passing, .passing_room = room});
    auto second =
        make_artifact_writer({.output = direct, .format = GetParam()});
    for (const auto& writer : {first.get(), second.get()}) {
      writer->add_tensor(norm_tensor());
      for (std::size_t k = 0; k < samples.size(); ++k) {
        writer->add_linear(name_of(k), samples[k].linear);
      }
      writer->finish(kConfig);
    }
    const std::shared_ptr<const Checkpoint> stored = open_checkpoint(passing);
    ThreadPool pool(2);
    auto writer = make_artifact_writer(
        {.output = copied, .format = GetParam(), .pool = &pool});
    const TensorInfo norm = stored->tensors().require("model.norm.weight");
    writer->add_stored_tensor(
        {norm, [&] { return stored->tensors().read(norm); }});
    for (std::size_t k = 0; k < samples.size(); ++k) {
      ASSERT_TRUE(writer->add_stored_linear(name_of(k), {stored}));
    }
    EXPECT_THROW(writer->add_stored_linear(name_of(0), {stored}), Error);
    fs::remove_all(passing);  // an open file stays readable
    writer->finish(kConfig);

    if (folder) {
      for (const char* file : {"model.safetensors", "config.json"}) {
        EXPECT_TRUE(read_file(direct / file) == read_file(copied / file))
            << file << ", room for the header " << room;
      }
      continue;
    }
    const auto model = open_checkpoint(copied);
    for (std::size_t k = 0; k < samples.size(); ++k) {
      expect_same_linear(model->read_linear(name_of(k)), samples[k].linear,
                         samples[k].what);
    }
  }
}

// Each rank writes shards of its own, from the files of the first; what lies in
// no file goes by way of a spool.
TEST(ArtifactWriter, DealsShardsOutToRanks) {
  const TemporaryDirectory tmp;
  const auto samples = sample_linears();
  auto first =
      make_artifact_writer({.output = tmp.path() / "a", .passing_room = 4096});
  for (std::size_t k = 0; k < samples.size(); ++k) {
    first->add_linear(name_of(k), samples[k].linear);
  }
  first->finish(kConfig);
  const auto write = [&](const std::string& output, const Ranks& ranks) {
    ThreadPool pool(1);
    if (!ranks.is_first()) return help_writing(ranks, pool);
    const std::shared_ptr<const Checkpoint> stored =
        open_checkpoint(tmp.path() / "a");
    auto writer = make_artifact_writer({.output = tmp.path() / output,
                                        .max_shard_bytes = 600,
                                        .pool = &pool,
                                        .ranks = ranks});
    writer->add_tensor(norm_tensor());
    for (std::size_t k = 0; k < samples.size(); ++k) {
      ASSERT_TRUE(writer->add_stored_linear(
          name_of(k), {stored, read_tensor_hashes(tmp.path() / "a")}));
    }
    const NamedTensor made = norm_tensor("model.made.weight");
    writer->add_stored_tensor(
        {{.name = made.name, .dtype = made.dtype, .shape = {3}, .bytes = 6},
         [made] {
           return TensorBytes{made.bytes, nullptr};
         }});
    writer->finish(kConfig);
  };
  const auto files = [&](const std::string& output) {
    std::map<std::string, std::string> content;
    for (const auto& entry : fs::directory_iterator(tmp.path() / output)) {
      content[entry.path().filename().string()] = read_file(entry.path());
    }
    return content;
  };
  write("one", {});
  const auto one = files("one");
  EXPECT_GT(one.size(), 6u);  // several shards
  for (const std::size_t ranks : {2u, 3u}) {
    const std::string name = std::to_string(ranks) + " ranks";
    run_on_ranks(ranks, [&](const Ranks& r) { write(name, r); });
    EXPECT_TRUE(files(name) == one) << name;
  }
}

class KeptShards : public testing::Test {
 protected:
  static constexpr std::size_t kTensors = 12;

  // Tensors of 40 octets, three a shard; reading tensor `fail_at` fails.
  void write(const std::string& output, const fs::path& kept,
             std::size_t fail_at = kTensors) {
    read_.clear();
    ThreadPool pool(1);
    const auto writer = make_artifact_writer({.output = tmp_.path() / output,
                                              .max_shard_bytes = 120,
                                              .pool = &pool,
                                              .kept = kept});
    for (std::size_t k = 0; k < kTensors; ++k) {
      const auto octets =
          std::make_shared<std::vector<std::byte>>(40, std::byte(k));
      writer->add_stored_tensor({{.name = formatted("t{:02}", k),
                                  .dtype = DType::kU8,
                                  .shape = {40},
                                  .bytes = 40},
                                 [this, octets, k, fail_at] {
                                   if (k == fail_at)
                                     throw Error(ErrorCode::kIo, "pulled out");
                                   read_.insert(k);
                                   return TensorBytes{*octets, octets};
                                 }});
    }
    writer->finish(kConfig);
  }

  Files files(const std::string& output) const {
    Files content;
    for (const auto& entry : fs::directory_iterator(tmp_.path() / output)) {
      content[entry.path().filename().string()] = read_file(entry.path());
    }
    return content;
  }

  void expect_finished(const std::set<std::size_t>& read) {
    write("out", kept_);
    EXPECT_EQ(read_, read);
    EXPECT_TRUE(files("out") == files("whole"));
    std::set<std::string> left;
    for (const auto& entry : fs::directory_iterator(tmp_.path())) {
      left.insert(entry.path().filename().string());
    }
    EXPECT_EQ(left, (std::set<std::string>{"out", "whole"}));
    fs::remove_all(tmp_.path() / "out");
  }

  // Written but for what comes from tensor `fail_at` on.
  void cut_off(std::size_t fail_at) {
    EXPECT_THROW(write("out", kept_, fail_at), Error);
    EXPECT_FALSE(fs::exists(tmp_.path() / "out"));
  }

  static std::set<std::size_t> from(std::size_t first) {
    std::set<std::size_t> all;
    for (std::size_t k = first; k < kTensors; ++k) all.insert(k);
    return all;
  }

  TemporaryDirectory tmp_;
  const fs::path kept_ = tmp_.path() / "kept";
  std::set<std::size_t> read_{};
};

TEST_F(KeptShards, AreNotMadeAgain) {
  write("whole", {});
  EXPECT_EQ(read_, from(0));
  for (const std::size_t fail_at : {0u, 1u, 5u, 9u}) {
    cut_off(fail_at);
    expect_finished(from(fail_at));
  }
}

TEST_F(KeptShards, AreMadeAgainWhereTheyAreNotWhatWasWritten) {
  write("whole", {});
  cut_off(9);
  std::string shard = read_file(kept_ / "shard-1");
  shard[shard.size() - 41] ^= 1;  // the last octet of tensor 4
  write_file_atomically(kept_ / "shard-1", shard);
  shard = read_file(kept_ / "shard-0");
  write_file_atomically(kept_ / "shard-0", shard.substr(0, shard.size() - 1));
  const fs::path journal = kept_.string() + ".shard-2";
  const std::string lines = read_file(journal);
  write_file_atomically(journal, lines.substr(0, lines.size() - 1));
  auto read = from(9);
  read.insert({2, 4, 8});
  expect_finished(read);
}

TEST_F(KeptShards, AreFoundUnderTheNamesThatTheyWereGivenLast) {
  write("whole", {});
  cut_off(10);
  fs::rename(kept_ / "shard-0", kept_ / "model-00001-of-00004.safetensors");
  fs::rename(kept_ / "shard-2", kept_ / "model-00003-of-00004.safetensors");
  write_file_atomically(kept_ / "model.safetensors.index.json", "{");
  write_file_atomically(kept_ / "config.json", "{");
  expect_finished(from(10));
}

TEST_F(KeptShards, OfOtherTensorsAreMadeAnew) {
  write("whole", {});
  cut_off(6);
  std::string shard = read_file(kept_ / "shard-0");
  shard[20] = ' ';  // of the header
  write_file_atomically(kept_ / "shard-0", shard);
  auto read = from(6);
  read.insert({0, 1, 2});
  expect_finished(read);
}

// GPTQ's layout is another one: nothing may be left half done.
TEST(ArtifactWriter, RefusesStoredLinearsThatItsFormatHasInAnotherForm) {
  const TemporaryDirectory tmp;
  auto first =
      make_artifact_writer({.output = tmp.path() / "a", .passing_room = 4096});
  first->add_linear(name_of(0), sample_linears().front().linear);
  first->finish(kConfig);
  const std::shared_ptr<const Checkpoint> stored =
      open_checkpoint(tmp.path() / "a");
  for (const char* format : {"gptq", "safetensors"}) {
    auto writer =
        make_artifact_writer({.output = tmp.path() / format, .format = format});
    EXPECT_FALSE(writer->add_stored_linear(name_of(0), {stored})) << format;
  }
}

// What is read must be as long as was said, and of a spool what went into it;
// the artifact does not appear.
TEST(ArtifactWriter, RefusesOtherOctetsThanWereSaid) {
  const TemporaryDirectory tmp;
  const NamedTensor norm = norm_tensor();
  const auto message_of = [](const auto& work) {
    try {
      work();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  auto writer = make_artifact_writer({.output = tmp.path() / "m"});
  writer->add_stored_tensor(
      {.info = {.name = norm.name,
                .dtype = norm.dtype,
                .shape = norm.shape,
                .bytes = 6},
       .read = [&] {
         return TensorBytes{std::span(norm.bytes).first(4), nullptr};
       }});
  EXPECT_NE(message_of([&] { writer->finish(kConfig); }).find("4 octets"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(tmp.path() / "m"));

  ThreadPool pool(1);
  ShardPart part{.tensor = norm.name, .bytes = 6};
  part.read = [&] { return TensorBytes{norm.bytes, nullptr}; };
  part.hash = content_hash(std::string_view("something else"));
  const ShardFile shard{.path = tmp.path() / "shard", .parts = {part}};
  EXPECT_NE(message_of([&] { write_shard(shard, pool); }).find(norm.name),
            std::string::npos);
}

TEST_P(EveryOwnFormat, ReadsBackEachKindAloneInItsModel) {
  for (const SampleLinear& sample : sample_linears()) {
    const TemporaryDirectory tmp;
    const fs::path output = tmp.path() / extension_for(GetParam());
    auto writer =
        make_artifact_writer({.output = output, .format = GetParam()});
    writer->add_linear("model.layers.0.mlp.up_proj", sample.linear);
    writer->finish(kConfig);
    expect_same_linear(
        open_checkpoint(output)->read_linear("model.layers.0.mlp.up_proj"),
        sample.linear, sample.what);
  }
}

TEST_P(EveryOwnFormat, WritesTheSameOctetsEveryTime) {
  const TemporaryDirectory tmp;
  const std::vector<SampleLinear> samples = sample_linears();
  const auto write = [&](const std::string& stem) {
    const fs::path output = tmp.path() / stem / extension_for(GetParam());
    auto writer =
        make_artifact_writer({.output = output, .format = GetParam()});
    for (const SampleLinear& s : samples) {
      writer->add_linear(s.what + describe(s.linear.weight), s.linear);
    }
    writer->add_tensor(norm_tensor());
    writer->finish(kConfig);
    return fs::is_directory(output) ? output / "model.safetensors" : output;
  };
  EXPECT_EQ(sha256_of_file(write("a")), sha256_of_file(write("b")));
}

TEST_P(EveryOwnFormat, LeavesNothingBehindWithoutFinish) {
  const TemporaryDirectory tmp;
  const fs::path output = tmp.path() / extension_for(GetParam());
  {
    auto writer =
        make_artifact_writer({.output = output, .format = GetParam()});
    writer->add_tensor(norm_tensor());
    EXPECT_FALSE(fs::exists(output));
    EXPECT_FALSE(fs::is_empty(tmp.path()));
  }
  EXPECT_TRUE(fs::is_empty(tmp.path()));
}

TEST_P(EveryOwnFormat, ReplacesAnEarlierModelOnlyWhenWhole) {
  const TemporaryDirectory tmp;
  const fs::path output = tmp.path() / extension_for(GetParam());
  const auto write = [&](const std::string& tensor, bool finish) {
    auto writer =
        make_artifact_writer({.output = output, .format = GetParam()});
    writer->add_tensor(norm_tensor(tensor));
    if (finish) writer->finish(kConfig);
  };
  write("first", true);
  write("second", false);
  EXPECT_NE(open_checkpoint(output)->tensors().find("first"), nullptr);
  write("third", true);
  EXPECT_EQ(open_checkpoint(output)->tensors().find("first"), nullptr);
  EXPECT_NE(open_checkpoint(output)->tensors().find("third"), nullptr);
  EXPECT_EQ(std::distance(fs::directory_iterator(tmp.path()), {}), 1);
}

TEST_P(EveryOwnFormat, RefusesATensorThatComesTwice) {
  const TemporaryDirectory tmp;
  auto writer = make_artifact_writer(
      {.output = tmp.path() / extension_for(GetParam()), .format = GetParam()});
  writer->add_tensor(norm_tensor());
  EXPECT_THROW(writer->add_tensor(norm_tensor()), Error);
}

TEST(ArtifactWriter, FillsShardsGreedilyAndIndexesThem) {
  const TemporaryDirectory tmp;
  const fs::path output = tmp.path() / "m";
  auto writer = make_artifact_writer({.output = output, .max_shard_bytes = 12});
  for (const char* name : {"e", "d", "c", "b", "a"}) {
    writer->add_tensor(norm_tensor(name));  // 6 octets each
  }
  writer->finish(kConfig);
  const json index = json::parse(read_file(output / kIndexFileName));
  EXPECT_EQ(index["metadata"]["total_size"], 30);
  EXPECT_EQ(index["weight_map"]["e"], "model-00001-of-00003.safetensors");
  EXPECT_EQ(index["weight_map"]["d"], "model-00001-of-00003.safetensors");
  EXPECT_EQ(index["weight_map"]["a"], "model-00003-of-00003.safetensors");
  EXPECT_EQ(open_tensors(output)->tensors().size(), 5u);
  EXPECT_FALSE(fs::exists(output / "spool"));
}

TEST(ArtifactWriter, CarriesFilesButNotWeightsNorStaleDescriptions) {
  const TemporaryDirectory tmp;
  const fs::path source = tmp.path() / "source", output = tmp.path() / "m";
  fs::create_directories(source / "folder");
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "generation_config.json",
        "model.safetensors", "pytorch_model.bin", "quantize_config.json",
        "model.safetensors.index.json", "config.json", ".hidden",
        "recipe.yaml"}) {
    std::ofstream(source / name) << "{}" << name;
  }
  auto writer = make_artifact_writer({.output = output, .source = source});
  writer->add_tensor(norm_tensor());
  writer->add_file("llmpress.json", "{\"a\":1}");
  EXPECT_THROW(writer->add_file("../escape", ""), Error);
  writer->finish(kConfig);
  std::set<std::string> found;
  for (const auto& entry : fs::directory_iterator(output)) {
    found.insert(entry.path().filename().string());
  }
  EXPECT_EQ(found,
            (std::set<std::string>{"config.json", "generation_config.json",
                                   "llmpress.json", "model.safetensors",
                                   "tokenizer.json", "tokenizer.model"}));
  EXPECT_EQ(read_file(output / "tokenizer.json"), "{}tokenizer.json");
  const json provenance = json::parse(read_file(output / "llmpress.json"));
  EXPECT_EQ(provenance["a"], 1);
  EXPECT_EQ(provenance["files"].get<std::set<std::string>>(), found);
}

TEST(ArtifactWriter, CarriesFilesOutOfAnHdf5FileToo) {
  const TemporaryDirectory tmp;
  const fs::path source = tmp.path() / "m.h5", output = tmp.path() / "m";
  auto first = make_artifact_writer({.output = source, .format = "hdf5"});
  first->add_tensor(norm_tensor());
  first->add_file("tokenizer.json", "{}");
  first->add_file("recipe.yaml", "stages: []");
  first->finish(kConfig);
  auto second = make_artifact_writer({.output = output, .source = source});
  second->add_tensor(norm_tensor());
  second->finish(kConfig);
  EXPECT_EQ(read_file(output / "tokenizer.json"), "{}");
  EXPECT_FALSE(fs::exists(output / "recipe.yaml"));
}

TEST(ArtifactWriter, KeepsTheModelsConfigurationAndDropsAStaleQuantization) {
  const TemporaryDirectory tmp;
  auto writer = make_artifact_writer({.output = tmp.path() / "m"});
  writer->add_tensor(norm_tensor());
  writer->finish(kConfig);
  const json config = json::parse(read_file(tmp.path() / "m/config.json"));
  EXPECT_EQ(config["torch_dtype"], "bfloat16");
  EXPECT_EQ(config["rms_norm_eps"], 1e-05);
  EXPECT_FALSE(config.contains("quantization_config"));
}

TEST(ArtifactWriter, RefusesToReplaceWhatIsNotAModel) {
  const TemporaryDirectory tmp;
  const fs::path folder = tmp.path() / "photos";
  fs::create_directories(folder);
  EXPECT_NO_THROW(make_artifact_writer({.output = folder}));  // empty
  std::ofstream(folder / "cat.png") << "meow";
  EXPECT_THROW(make_artifact_writer({.output = folder}), Error);
  EXPECT_THROW(make_artifact_writer({.output = folder, .format = "hdf5"}),
               Error);
  EXPECT_THROW(make_artifact_writer({.output = folder / "cat.png"}), Error);
  EXPECT_THROW(
      make_artifact_writer({.output = folder / "cat.png", .format = "hdf5"}),
      Error);
  EXPECT_THROW(make_artifact_writer({.output = folder / "cat.png/below"}),
               Error);
  EXPECT_THROW(
      make_artifact_writer({.output = tmp.path() / "x", .format = "zip"}),
      Error);
  EXPECT_EQ(read_file(folder / "cat.png"), "meow");
}

TEST(ArtifactWriter, PlainSafetensorsRefusesPackedWeightsByName) {
  const TemporaryDirectory tmp;
  auto writer = make_artifact_writer(
      {.output = tmp.path() / "m", .format = "safetensors"});
  for (const SampleLinear& s : sample_linears()) {
    const bool plain = std::holds_alternative<DenseWeight>(s.linear.weight) &&
                       s.linear.input_hadamard == 0;
    try {
      writer->add_linear(
          formatted("l.{}{}{}", plain, s.what, describe(s.linear.weight)),
          s.linear);
      EXPECT_TRUE(plain) << s.what;
    } catch (const Error& e) {
      EXPECT_FALSE(plain) << s.what << ": " << e.what();
      EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
      EXPECT_NE(std::string(e.what()).find(s.what), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace llmpress
