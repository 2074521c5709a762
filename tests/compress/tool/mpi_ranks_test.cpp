// One command on several ranks: the same bytes of every output as one process
// writes.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "compress/pipeline/training/random_model.h"
#include "formats/adapters/peft_adapter.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/checkpoint.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

#ifdef LLMPRESS_MPIRUN

const std::string kRoot = source_dir();

using Files = std::map<std::string, std::string>;  // name -> content

struct Outcome {
  int code = 0;
  std::string output{}, errors{};
};

// The processes that mpirun `launcher` started.
std::vector<pid_t> ranks_of(pid_t launcher) {
  std::vector<pid_t> ranks;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "stat");
    pid_t process = 0, parent = 0;
    std::string name, state;
    if (!(file >> process >> name >> state >> parent)) continue;
    if (parent == launcher && name == "(llmpress)") ranks.push_back(process);
  }
  return ranks;
}

class MpiRanks : public testing::Test {
 protected:
  fs::path path(const std::string& name) const {
    return directory_.path() / name;
  }

  // How `ranks` of the program are started; 1: without mpirun.
  static std::string program(int ranks) {
    if (ranks == 1) return llmpress::program() + " ";
    // More ranks than processors, in a container, as root or not.
    return "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
           "OMPI_MCA_btl_vader_single_copy_mechanism=none "
           "OMPI_MCA_rmaps_base_oversubscribe=1 "
           "OMPI_MCA_mpi_yield_when_idle=1 "
           // Open MPI keeps what it allocated.
           "LSAN_OPTIONS=exitcode=0 " LLMPRESS_MPIRUN " --bind-to none -n " +
           std::to_string(ranks) + " " + llmpress::program() + " ";
  }

  Outcome command(int ranks, const std::string& arguments) const {
    const std::string line = program(ranks) + arguments + " >" +
                             path("stdout").string() + " 2>" +
                             path("stderr").string();
    const int status = std::system(line.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1,
            read_file(path("stdout")), read_file(path("stderr"))};
  }

  std::string write_recipe(const std::string& text) const {
    write_file_atomically(path("recipe.yaml"), text);
    return path("recipe.yaml").string();
  }

  // Of everything below a folder, which goes.
  static Files take(const fs::path& folder) {
    Files files;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (!entry.is_regular_file()) continue;
      files[fs::relative(entry.path(), folder).string()] =
          read_file(entry.path());
    }
    fs::remove_all(folder);
    return files;
  }

  // What a run of the recipe writes to "out", but for times.
  Files files_of(int ranks, const std::string& recipe,
                 const std::string& options = "") {
    const Outcome run =
        command(ranks, "run " + recipe + " --json " +
                           path("report.json").string() + " " + options);
    EXPECT_EQ(run.code, 0) << ranks << " ranks:\n" << run.errors;
    EXPECT_FALSE(fs::exists(path("out/gptq.resume")));
    Files files = take(path("out"));
    EXPECT_FALSE(files.empty());
    const auto report = nlohmann::json::parse(read_file(path("report.json")));
    EXPECT_EQ(report.value("ranks", nlohmann::json::array()).size(),
              ranks == 1 ? 0u : static_cast<unsigned>(ranks));
    for (const auto& variant : report.at("variants")) {
      const std::string name = variant.at("name");
      files[name + ":notes"] = variant.at("notes").dump();
      for (const auto& layer : variant.at("layers")) {
        files[name + ":" + layer.at("name").get<std::string>()] =
            layer.at("output_error").dump() + layer.at("notes").dump();
      }
      if (!variant.contains("evaluation")) continue;
      auto evaluation = variant.at("evaluation");
      evaluation.erase("seconds");
      evaluation.erase("tokens_per_second");
      files[name + ":evaluation"] =
          evaluation.dump() + variant.at("divergence").dump();
    }
    return files;
  }

  static void expect_same(const Files& a, const Files& b) {
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, content] : a) {
      ASSERT_TRUE(b.contains(name)) << name;
      EXPECT_TRUE(content == b.at(name)) << name << " differs";
    }
  }

  void write_adapter() const {
    PeftModule module;
    module.A = MatrixF(std::vector<float>(4 * 256, 0.01f), 4, 256);
    module.B = MatrixF(std::vector<float>(256 * 4, 0.02f), 256, 4);
    module.scaling = 2;
    write_peft_adapter(path("adapter"),
                       {{"model.layers.1.self_attn.q_proj", module}}, {});
  }

  // 20 sequences: more batches than ranks, and not a multiple of them.
  static std::string calibration() {
    return "calibration: {text: " + kRoot +
           "/models/text/calibration.txt, samples: 20, sequence_length: "
           "512}\n";
  }

  std::string write_gptq_recipe() const {
    return write_recipe("model: " + kRoot + "/models/tinystories-3.7m\n" +
                        calibration() +
                        "output: {path: " + path("out/gptq").string() + "}\n" +
                        "stages:\n  - quantize: {method: gptq, weights: {bits: "
                        "4, group_size: 32}}\n");
  }

  // Starts a run of the recipe on `ranks` and returns its launcher once all of
  // them are at its blocks; 0 if it ended before.
  pid_t launch(int ranks, const std::string& recipe,
               const std::string& options) const {
    const pid_t launcher = fork();
    if (launcher == 0) {
      const std::string line = "exec env " + program(ranks) + "run " + recipe +
                               " --threads 1 --quiet " + options +
                               " >/dev/null 2>" + path("stderr").string();
      execl("/bin/sh", "sh", "-c", line.c_str(), static_cast<char*>(nullptr));
      _exit(127);
    }
    while (!fs::exists(path("out/gptq.resume")) ||
           ranks_of(launcher).size() < static_cast<std::size_t>(ranks)) {
      if (waitpid(launcher, nullptr, WNOHANG) != 0) return 0;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return launcher;
  }

  TemporaryDirectory directory_;
};

TEST_F(MpiRanks, WriteTheBytesOfOneProcess) {
  write_adapter();
  const auto variant = [this](const std::string& name,
                              const std::string& stages) {
    return "  - name: " + name +
           "\n    output: {path: " + path("out/" + name).string() +
           "}\n    stages: [" + stages + "]\n";
  };
  const std::string int4 = "weights: {bits: 4, group_size: 32}";
  const std::string recipe = write_recipe(
      "model: " + kRoot + "/models/tinystories-3.7m\n" + calibration() +
      "evaluate: {text: " + kRoot +
      "/models/text/evaluation.txt, context: 512, max_windows: 17}\n" +
      "variants:\n" + variant("rtn", "quantize: {method: rtn, " + int4 + "}") +
      variant("gptq", "merge_lora: {adapter: " + path("adapter").string() +
                          "}, quantize: {method: gptq, act_order: true, " +
                          int4 + "}") +
      variant("awq",
              "quantize: {method: awq, awq: {ratios: 3}, " + int4 + "}") +
      variant("sparsegpt", "prune: {method: sparsegpt, pattern: \"2:4\"}"));
  const Files one = files_of(1, recipe);
  EXPECT_TRUE(one.contains("gptq/model.safetensors"));
  for (const int ranks : {2, 3, 4}) {
    expect_same(files_of(ranks, recipe, "--threads 1"), one);
  }
}

TEST_F(MpiRanks, WriteTheBytesOfOneProcessForAMixtureOfExperts) {
  write_random_model(
      {.config = {},
       .config_json = R"({"architectures": ["MixtralForCausalLM"],
         "model_type": "mixtral", "hidden_size": 64, "intermediate_size": 96,
         "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 2048, "hidden_act": "silu",
         "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
         "num_local_experts": 5, "num_experts_per_tok": 2,
         "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2})",
       .source = kRoot + "/models/tinystories-3.7m",
       .output = path("experts"),
       .seed = 5,
       .dtype = DType::kBF16});
  const std::string recipe = write_recipe(
      "model: " + path("experts").string() + "\n" + calibration() +
      "output: {path: " + path("out/experts").string() +
      ", max_shard_size: 100KB}\n" +
      "stages:\n  - quantize: {method: gptq, weights: {bits: 4, group_size: "
      "32}}\n");
  const Files one = files_of(1, recipe);
  EXPECT_TRUE(one.contains("experts/model.safetensors.index.json"));
  expect_same(files_of(3, recipe, "--threads 1"), one);
}

TEST_F(MpiRanks, EndTogetherWhenOneIsKilledAndGoOnWithAnyNumber) {
  const std::string recipe = write_gptq_recipe();
  const Files one = files_of(1, recipe);
  int round = 0;
  for (const int milliseconds : {50, 400}) {
    const pid_t launcher = launch(3, recipe, "");
    ASSERT_NE(launcher, 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    const std::vector<pid_t> ranks = ranks_of(launcher);
    if (ranks.size() == 3)
      kill(ranks[static_cast<std::size_t>(round)], SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(launcher, &status, 0), launcher);
    if (ranks.size() == 3) {
      EXPECT_NE(status, 0);
    }
    expect_same(files_of(++round, recipe), one);
  }
}

TEST_F(MpiRanks, EndWhenOneStandsStill) {
  const std::string recipe = write_gptq_recipe();
  const pid_t launcher = launch(2, recipe, "--stall-limit 6");
  ASSERT_NE(launcher, 0);
  kill(ranks_of(launcher)[0], SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(launcher, &status, 0), launcher);
  EXPECT_EQ(WEXITSTATUS(status), 3);
  EXPECT_NE(read_file(path("stderr")).find(": waited 6 s for rank "),
            std::string::npos)
      << read_file(path("stderr"));
}

#ifdef LLMPRESS_INJECTOR

// Each rank's own writes fail at some point: all end with the cause, nothing is
// there by its name, and the run goes on to the same bytes.
TEST_F(MpiRanks, EndWithTheCauseWhereAWriteFails) {
  const std::string recipe = write_gptq_recipe();
  const Files wanted = files_of(1, recipe);
  const auto fails = [&](int ranks, const std::string& fault) {
    std::string line = program(ranks);
    line.insert(line.size() - llmpress::program().size() - 1,
                "env LD_PRELOAD=" LLMPRESS_INJECTOR " LLMPRESS_INJECT=" +
                    fault + " LLMPRESS_INJECT_BELOW=" + path("out").string() +
                    " LLMPRESS_INJECT_COUNTS=" + path("counts").string() + " ");
    const int status = std::system(
        (line + "run " + recipe + " --quiet 2>" + path("stderr").string())
            .c_str());
    return WEXITSTATUS(status);
  };
  const std::pair<std::string, std::string> faults[] = {
      {"full:1000", "No space left on device"},
      {"full:300000", "No space left on device"},
      {"full:2500000", "No space left on device"},
      {"sync:2", "Input/output error"},
      {"rename:1", "Permission denied"},
      {"create:3", "Permission denied"}};
  for (const auto& [fault, cause] : faults) {
    EXPECT_EQ(fails(2, fault), 3) << fault;
    const std::string errors = read_file(path("stderr"));
    EXPECT_NE(errors.find("llmpress: error: rank "), std::string::npos);
    EXPECT_NE(errors.find(cause), std::string::npos) << fault << errors;
    EXPECT_FALSE(fs::exists(path("out/gptq"))) << fault;
  }
  expect_same(files_of(3, recipe), wanted);
}

#endif

TEST_F(MpiRanks, TellAMistakeOnceAndEndWithItsCode) {
  const std::string recipe =
      write_recipe("model: " + path("nowhere").string() +
                   "\noutput: {path: " + path("out/x").string() +
                   "}\nstages: [{quantize: {method: rtn}}]\n");
  const Outcome run = command(3, "run " + recipe);
  EXPECT_EQ(run.code, command(1, "run " + recipe).code);
  const std::size_t at = run.errors.find("llmpress: error: rank 0: ");
  ASSERT_NE(at, std::string::npos) << run.errors;
  EXPECT_EQ(run.errors.find("llmpress: error:", at + 1), std::string::npos)
      << run.errors;
}

TEST_F(MpiRanks, PrintOneResultAndLeaveOtherCommandsToTheFirst) {
  const std::string version = command(1, "--version").output;
  EXPECT_EQ(command(2, "--version").output, version);
  const std::string evaluation =
      "eval " + kRoot + "/models/tinystories-3.7m --text " + kRoot +
      "/models/text/evaluation.txt --context 256 --max-windows 33 --json -";
  auto one = nlohmann::json::parse(command(1, evaluation).output);
  auto two = nlohmann::json::parse(command(2, evaluation).output);
  for (auto* const result : {&one, &two}) {
    result->erase("seconds");
    result->erase("tokens_per_second");
  }
  EXPECT_EQ(one, two);
  EXPECT_EQ(command(2, "run").code, 2);
}

TEST_F(MpiRanks, ShareAModelThatNoneOfThemHolds) {
  const std::string model = kRoot + "/models/tinystories-3.7m";
  const std::string evaluation =
      "eval " + model + " --text " + kRoot +
      "/models/text/evaluation.txt --context 128 --max-windows 33 --json -";
  const std::string chat = "generate " + model + " -n 24 --prompt 'Once upon'";
  auto one = nlohmann::json::parse(command(1, evaluation).output);
  const std::string text = command(1, chat).output;
  EXPECT_GT(text.size(), 20u);
  const std::pair<int, std::string> spreads[] = {
      {2, " --pipeline 2"},
      {2, " --tensor-parallel 2"},
      {4, " --pipeline 2"},  // two copies
      {4, " --pipeline 2 --tensor-parallel 2"}};
  for (const auto& [ranks, options] : spreads) {
    const Outcome spread = command(ranks, evaluation + options);
    EXPECT_EQ(spread.code, 0) << spread.errors;
    auto found = nlohmann::json::parse(spread.output);
    for (auto* const result : {&one, &found}) {
      result->erase("seconds");
      result->erase("tokens_per_second");
    }
    EXPECT_EQ(one, found) << options;
    EXPECT_EQ(command(ranks, chat + options).output, text) << options;
  }
  // 96 MiB on one rank; half of the blocks on each of two.
  const Outcome enough =
      command(2, evaluation + " --pipeline 2 --memory-limit 92MiB");
  EXPECT_EQ(enough.code, 0) << enough.errors;
  EXPECT_EQ(nlohmann::json::parse(enough.output)["nll"], one["nll"]);
  const Outcome little =
      command(2, evaluation + " --pipeline 2 --memory-limit 60MiB");
  EXPECT_EQ(little.code, 4) << little.errors;
  EXPECT_NE(little.errors.find("the smallest limit that would do"),
            std::string::npos)
      << little.errors;
  const Outcome wrong = command(3, evaluation + " --pipeline 2");
  EXPECT_EQ(wrong.code, 2);
  EXPECT_NE(wrong.errors.find("2 ranks or a multiple of them, found 3"),
            std::string::npos)
      << wrong.errors;
}

#else

TEST(MpiRanks, AreRefusedByAProgramWithoutMpi) {
  const std::string line = "OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=1 " +
                           program() + " --version >/dev/null 2>&1";
  const int status = std::system(line.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 2);
}

#endif

}  // namespace
}  // namespace llmpress
