// Damaged files of every reader, given to the program as a user would. Each is
// read, or refused with an exit code that says whose fault it is.
//
//   LLMPRESS_MUTATIONS=1500    how many (default: 120)
//   LLMPRESS_FUZZ_SEEDS=DIR    keeps the whole files as seeds of the fuzzers
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "tests/compress/tool/small_inputs.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

std::size_t number_from(const char* variable, std::size_t otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : std::stoul(text);
}

// One to four changes: octets, bits, cuts, repeats, numbers in their places.
std::string damaged(std::string octets, Rng& rng) {
  for (std::size_t left = 1 + rng.below(4); left > 0 && !octets.empty();
       --left) {
    // The first octets decide more than the last ones.
    const std::size_t range = rng.below(2) == 0
                                  ? std::min<std::size_t>(octets.size(), 512)
                                  : octets.size();
    const std::size_t at = rng.below(range);
    switch (rng.below(6)) {
      case 0:
        octets[at] = static_cast<char>(rng.below(256));
        break;
      case 1:
        octets[at] = static_cast<char>(octets[at] ^ (1 << rng.below(8)));
        break;
      case 2:
        octets.resize(at);
        break;
      case 3:
        octets.erase(at, 1 + rng.below(16));
        break;
      case 4:
        octets.insert(at, octets.substr(at, 1 + rng.below(64)));
        break;
      default: {  // another length or count
        const char* const numbers[] = {"-1", "0", "4294967296", "1e99", "9999"};
        const std::size_t digit = octets.find_first_of("0123456789", at);
        if (digit != std::string::npos) {
          octets.replace(digit, 1, numbers[rng.below(5)]);
        }
      }
    }
  }
  return octets;
}

struct Target {
  std::string file;
  std::string command;
};

std::vector<Target> targets(const SmallInputs& in) {
  const std::string text = " --context 16 --max-windows 2 --text ";
  const std::string eval = "eval ", txt = text + in.path("text.txt");
  std::vector<Target> all;
  for (const char* model : {"model", "sharded", "w4", "nf4", "mlx", "fp8"}) {
    const std::string folder = in.path(model);
    std::vector<std::string> files{"config.json", "model.safetensors"};
    if (model == std::string("sharded")) {
      files = {"model.safetensors.index.json"};
    }
    if (model == std::string("model")) {
      files.insert(files.end(), {"tokenizer.json", "tokenizer_config.json"});
    }
    for (const std::string& file : files) {
      all.push_back({std::string(model) + "/" + file, eval + folder + txt});
    }
  }
  for (const char* model : {"model.h5", "w4.h5"}) {
    all.push_back({model, eval + in.path(model) + txt});
    all.push_back({model, "inspect --json " + in.path(model)});
  }
  for (const char* model : {"model.gguf", "pieces.gguf"}) {
    all.push_back({model, eval + in.path(model) + txt});
    all.push_back({model, "convert " + in.path(model) + " " + in.path("out") +
                              " --format safetensors"});
  }
  for (const std::string file : {"im.gguf", "im.dat"}) {
    all.push_back({file, "run " + in.path(file + ".yaml") + " --output " +
                             in.path("out.h5")});
  }
  const auto logits = [&](const std::string& model) {
    return "logits " + in.path(model) + " --ids 1,2,3 --output " +
           in.path("out");
  };
  for (const auto& [model, file] :
       {std::pair{"torch", "torch/pytorch_model.bin"},
        std::pair{"torchao", "torchao/model.safetensors"},
        std::pair{"mistral", "mistral/params.json"},
        std::pair{"meta", "meta/consolidated.01.pth"},
        std::pair{"old.bin", "old.bin"}, std::pair{"new.bin", "new.bin"},
        std::pair{"new.bin", "tokenizer.bin"}}) {
    all.push_back({file, logits(model)});
  }
  all.push_back({"pieces/tokenizer.model", eval + in.path("pieces") + txt});
  const std::string merge = "merge " + in.path("model") + " " +
                            in.path("adapter") + " --output " + in.path("out");
  all.push_back({"adapter/adapter_config.json", merge});
  all.push_back({"adapter/adapter_model.safetensors", merge});
  const std::string run = " --output " + in.path("out");
  all.push_back({"w4.yaml", "run " + in.path("w4.yaml") + run});
  all.push_back({"ids.h5", "run " + in.path("w4.yaml") + run});
  all.push_back(
      {"text.jsonl", eval + in.path("model") + text + in.path("text.jsonl")});
  return all;
}

class Mutation : public ::testing::Test {
 protected:
  TemporaryDirectory directory_;
  const SmallInputs inputs_{directory_.path()};
};

TEST_F(Mutation, NeverCrashesHangsOrBlamesItself) {
  const std::vector<Target> all = targets(inputs_);
  const std::string log = inputs_.path("log");
  Rng rng(number_from("LLMPRESS_MUTATION_SEED", 1));
  const std::size_t rounds = number_from("LLMPRESS_MUTATIONS", 120);
  for (std::size_t round = 0; round < rounds; ++round) {
    const Target& target = all[round % all.size()];
    const std::string whole = inputs_.content(target.file);
    const std::string changed = damaged(whole, rng);
    const auto put = [&](const std::string& octets) {
      std::ofstream(inputs_.path(target.file), std::ios::binary) << octets;
    };
    put(changed);
    const std::string command = "timeout -s KILL 10 " + program() + " " +
                                target.command + " --quiet >/dev/null 2>" + log;
    const int status = std::system(command.c_str());
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    const std::string said = read_file(log);
    const bool known = code == 0 || code == 2 || code == 3 || code == 4;
    if (!known || said.find("internal error") != std::string::npos) {
      const std::string kept =
          "/tmp/llmpress-mutation-" + std::to_string(round);
      std::ofstream(kept, std::ios::binary) << changed;
      ADD_FAILURE() << target.file << ", " << target.command << "\ncode "
                    << code << "\n"
                    << said << kept;
    }
    put(whole);
    fs::remove_all(inputs_.path("out"));
    fs::remove_all(inputs_.path("out.resume"));
  }
}

TEST_F(Mutation, ItsFilesAreSeedsOfTheFuzzers) {
  const char* const folder = std::getenv("LLMPRESS_FUZZ_SEEDS");
  const fs::path seeds =
      folder == nullptr ? directory_.path() / "seeds" : folder;
  const auto keep = [&](const std::string& fuzzer, const std::string& name,
                        const std::string& octets) {
    fs::create_directories(seeds / fuzzer);
    std::ofstream(seeds / fuzzer / name, std::ios::binary) << octets;
  };
  for (const char* model : {"model", "w4", "nf4", "mlx", "fp8", "torchao"}) {
    const std::string in = model;
    const std::string config = inputs_.content(in + "/config.json");
    const std::string tensors = inputs_.content(in + "/model.safetensors");
    keep("architecture_fuzz", model, config);
    keep("config_files_fuzz", model, config);
    keep("safetensors_fuzz", model, tensors);
    keep("compressed_tensors_fuzz", model,
         nlohmann::json::parse(config).dump() + "\n" + tensors);
  }
  keep("safetensors_fuzz", "index",
       inputs_.content("sharded/model.safetensors.index.json"));
  for (const char* file : {"model.h5", "w4.h5", "ids.h5"}) {
    keep("hdf5_fuzz", file, inputs_.content(file));
  }
  for (const char* file : {"im.gguf", "im.dat"}) {
    keep("imatrix_fuzz", file, inputs_.content(file));
  }
  for (const char* file : {"model.gguf", "pieces.gguf"}) {
    keep("gguf_fuzz", file, inputs_.content(file));
  }
  for (const char* file :
       {"torch/pytorch_model.bin", "meta/consolidated.01.pth"}) {
    const std::string octets = inputs_.content(file);
    const std::string name = fs::path(file).filename().string();
    keep("torch_file_fuzz", name, octets);
    const std::size_t pickle = octets.find("\x80\x02}");
    keep("torch_file_fuzz", name + ".pkl",
         octets.substr(pickle, octets.find("u.", pickle) + 2 - pickle));
  }
  for (const char* file : {"old.bin", "new.bin", "tokenizer.bin"}) {
    keep("llama2c_fuzz", file, inputs_.content(file));
  }
  for (const char* model : {"mistral", "meta"}) {
    keep("params_json_fuzz", model,
         inputs_.content(std::string(model) + "/params.json"));
  }
  for (const char* file : {"text.txt", "text.jsonl", "ids.h5"}) {
    keep("calibration_text_fuzz", file, inputs_.content(file));
  }
  keep("peft_adapter_fuzz", "adapter",
       inputs_.content("adapter/adapter_config.json") + '\0' +
           inputs_.content("adapter/adapter_model.safetensors"));
  keep("tokenizer_json_fuzz", "bytes",
       inputs_.content("model/tokenizer.json") + '\0' + "the cat");
  keep("tokenizer_json_fuzz", "metaspace",
       testing::metaspace_tokenizer({{"a", "b"}}).dump() + '\0' + "ab c");
  keep("sentencepiece_fuzz", "pieces",
       inputs_.content("pieces/tokenizer.model") + "the cat");
  keep("layer_report_fuzz", "two",
       layers_to_json({{.name = "a", .method = "rtn"},
                       {.name = "b", .notes = {"left alone"}}}));
  for (const auto& entry : fs::directory_iterator(source_dir() + "/recipes")) {
    if (entry.path().extension() != ".yaml") continue;
    keep("recipe_parser_fuzz", entry.path().filename().string(),
         read_file(entry.path()));
  }
  EXPECT_GE(std::distance(fs::directory_iterator(seeds), {}), 9);
}

}  // namespace
}  // namespace llmpress
