// run, convert, merge and extract while the disk fills up, system calls fail or are
// interrupted, memory is short, or the process is killed: inputs and an earlier
// output stay as they are, an output is whole or absent, nothing temporary
// stays, and the message and the exit code say what it was. Wants
// -D LLMPRESS_FAILURE_INJECTION=ON.
#ifdef LLMPRESS_INJECTOR

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

#include "formats/checkpoints/artifact_writer.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/compress/pipeline/adapters/adapter_files.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

using Files = std::map<std::string, std::string>;

// Every file below `folder`, by its name; folders end in a slash.
Files files_of(const fs::path& folder) {
  Files files;
  if (!fs::exists(folder)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().lexically_relative(folder).string();
    if (entry.is_directory()) {
      files[name + "/"];
    } else {
      files[name] = read_file(entry.path());
    }
  }
  return files;
}

struct Command {
  std::string name, arguments, earlier;  // `earlier`: another output's
};

void PrintTo(const Command& command, std::ostream* out) {
  *out << command.arguments;
}

constexpr int kUsage = 2;
constexpr int kBadFile = 3, kNoMemory = 4;

class FailureInjection : public testing::TestWithParam<Command> {
 protected:
  FailureInjection() {
    const TinyShape shape{.vocabulary = 2048};
    write_model("in/base", shape, 1);
    write_model("in/tuned", shape, 2);
    Rng rng(3);
    AdapterFiles(R"("r": 4, "lora_alpha": 8)")
        .linear("model.layers.0.self_attn.q_proj",
                sized_lora(shape.heads * shape.head_dim, shape.hidden, 4, 2,
                           false, rng))
        .write(at("in/adapter"));
    write_file_atomically(at("in/r.yaml"),
                          "model: base\noutput: {path: ../work/out}\n"
                          "report: ../work/report\nstages:\n  - quantize: "
                          "{method: rtn, weights: {bits: 4, group_size: 8}}\n");
    inputs_ = files_of(at("in"));
    EXPECT_EQ(run(GetParam().earlier, "", "work"), 0) << message();
    earlier_ = files_of(at("work"));
    fs::remove_all(at("work"));
    EXPECT_EQ(run(GetParam().arguments, "count:0", "work"), 0) << message();
    wanted_ = files_of(at("work"));
    EXPECT_NE(earlier_, wanted_);
    std::ifstream lines(at("counts"));
    std::string kind;
    for (std::size_t n = 0; lines >> kind >> n;) counts_[kind] = n;
  }

  fs::path at(const std::string& name) const { return tmp_.path() / name; }

  void write_model(const std::string& name, const TinyShape& shape,
                   std::uint64_t seed) const {
    const fs::path shipped = source_dir() + "/models/tinystories-3.7m";
    fs::create_directories(at(name));
    write_file_atomically(at(name) / "config.json", config_json(shape));
    write_file_atomically(
        at(name) / "model.safetensors",
        write_safetensors(named_tensors(tiny_tensors(shape, seed)), {}));
    fs::copy(shipped / "tokenizer.json", at(name));
    fs::copy(shipped / "tokenizer_config.json", at(name));
  }

  // The exit code, or 128 + signal. The command writes below `folder`.
  int run(const std::string& arguments, const std::string& fault,
          const std::string& folder) const {
    fs::create_directories(at(folder));
    std::string command = "cd " + at("in").string() + " && exec env ";
    if (!fault.empty()) {
      command += "LD_PRELOAD=" LLMPRESS_INJECTOR " LLMPRESS_INJECT=" + fault +
                 " LLMPRESS_INJECT_BELOW=" + tmp_.path().string() +
                 " LLMPRESS_INJECT_COUNTS=" + at("counts").string() + " ";
    }
    command += program() + " " + arguments + " --quiet --threads 1 >" +
               at("stdout").string() + " 2>" + at("stderr").string();
    const int status = std::system(command.c_str());
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

  std::string message() const { return read_file(at("stderr")); }

  void put_earlier() const {
    fs::remove_all(at("work"));
    for (const auto& [name, content] : earlier_) {
      const fs::path path = at("work") / name;
      fs::create_directories(path.parent_path());
      if (!name.ends_with('/')) write_file_atomically(path, content);
    }
  }

  // `name` of the folder "work", without what others lie beside it.
  static Files part(const Files& files, const std::string& name) {
    Files some;
    for (const auto& [file, content] : files) {
      if (file == name || file.starts_with(name + "/")) some[file] = content;
    }
    return some;
  }

  // Old or new, whole.
  void expect_whole(const Files& before, const std::string& what) const {
    const Files after = files_of(at("work"));
    for (const char* name :
         {"out", "j.json", "report/report.json", "report/report.md"}) {
      const Files now = part(after, name);
      // Reports hold times: that they are there must do.
      const bool is_new = std::string(name) == "out"
                              ? now == part(wanted_, name)
                              : now.size() == part(wanted_, name).size();
      EXPECT_TRUE(now == part(before, name) || is_new) << what << ": " << name;
    }
    EXPECT_EQ(files_of(at("in")), inputs_) << what;
  }

  void expect_nothing_temporary(const std::string& what) const {
    for (const auto& entry : fs::recursive_directory_iterator(at("work"))) {
      const std::string name = entry.path().string();
      if (name.find(".resume/") != std::string::npos) continue;
      EXPECT_EQ(name.find(".partial-"), std::string::npos) << what << name;
      EXPECT_EQ(name.find("-lock"), std::string::npos) << what << name;
    }
  }

  void expect_recovery(const std::string& what) const {
    ASSERT_EQ(run(GetParam().arguments, "", "work"), 0) << what << message();
    const Files after = files_of(at("work"));
    EXPECT_EQ(part(after, "out"), part(wanted_, "out")) << what;
    std::set<std::string> names, expected;
    for (const auto& [name, content] : after) names.insert(name);
    for (const auto& [name, content] : wanted_) expected.insert(name);
    EXPECT_EQ(names, expected) << what;
  }

  // `kind` at about `tries` moments of the command, once beside nothing and
  // once over an earlier output.
  void walk(const std::string& kind, std::size_t tries, int code,
            const std::string& part_of_message) {
    const std::size_t last = counts_[kind];
    ASSERT_GT(last, 0u) << kind;
    const std::size_t step = std::max<std::size_t>(1, last / tries);
    bool earlier = false;
    for (std::size_t n = 1; n <= last; n += step, earlier = !earlier) {
      fs::remove_all(at("work"));
      if (earlier) put_earlier();
      const std::string fault = kind + ":" + std::to_string(n);
      const int found = run(GetParam().arguments, fault, "work");
      const std::string what = fault + ": " + message();
      const Files before = earlier ? earlier_ : Files{};
      expect_whole(before, what);
      if (found != 0) {
        // HDF5 files are read in a child, which cannot tell what it was.
        // One that it could not look at is left where it is.
        const bool child =
            kind == "new" &&
            ((found == kBadFile &&
              what.find("memory runs out") != std::string::npos) ||
             (found == kUsage &&
              what.find("not replaced") != std::string::npos));
        EXPECT_TRUE(found == code || child) << found << " " << what;
        EXPECT_TRUE(what.find(part_of_message) != std::string::npos || child)
            << what;
        EXPECT_EQ(what.find("internal error"), std::string::npos) << what;
      }
      // nlohmann::json needs memory to give some back.
      const bool at_once = what.find("ended at once") != std::string::npos;
      if (kind != "kill" && !at_once) expect_nothing_temporary(what);
      expect_recovery(what);
    }
  }

  TemporaryDirectory tmp_;
  Files inputs_, earlier_, wanted_;
  std::map<std::string, std::size_t> counts_;
};

TEST_P(FailureInjection, AFullDisk) {
  walk("full", 16, kBadFile, "No space left on device");
}

TEST_P(FailureInjection, AFailingFlush) {
  walk("sync", 8, kBadFile, "Input/output error");
}

TEST_P(FailureInjection, ANameThatCannotBeChanged) {
  walk("rename", 6, kBadFile, "Permission denied");
}

TEST_P(FailureInjection, AFileThatCannotBeMade) {
  walk("create", 10, kBadFile, "Permission denied");
}

TEST_P(FailureInjection, AFileThatCannotBeOpened) {
  walk("open", 10, kBadFile, "Too many open files");
}

TEST_P(FailureInjection, AFileThatCannotBeMapped) {
  walk("map", 8, kBadFile, "Cannot allocate memory");
}

TEST_P(FailureInjection, MemoryThatIsNotThere) {
  walk("new", 24, kNoMemory, "out of memory");
}

TEST_P(FailureInjection, AKill) { walk("kill", 24, 128 + SIGKILL, ""); }

TEST_P(FailureInjection, ShortAndInterruptedCallsChangeNothing) {
  for (const std::string fault : {"short:0", "again:0"}) {
    fs::remove_all(at("work"));
    EXPECT_EQ(run(GetParam().arguments, fault, "work"), 0) << message();
    EXPECT_EQ(part(files_of(at("work")), "out"), part(wanted_, "out")) << fault;
  }
}

const std::string kOut = " --output ../work/out ";

INSTANTIATE_TEST_SUITE_P(
    Commands, FailureInjection,
    testing::Values(
        Command{"run", "run r.yaml --json ../work/j.json",
                "run r.yaml --set stages.0.quantize.weights.bits=8"},
        Command{"run_hdf5", "run r.yaml --set output.format=hdf5 --no-resume",
                "run r.yaml --set output.format=hdf5 --set "
                "stages.0.quantize.weights.bits=8"},
        Command{"convert",
                "convert base ../work/out --format safetensors --type bf16",
                "convert base ../work/out --format safetensors --type f16"},
        Command{"merge", "merge base adapter" + kOut,
                "merge base adapter --scale 0.5" + kOut},
        Command{"extract",
                "extract base tuned --rank 2 --json ../work/j.json" + kOut,
                "extract base tuned --rank 1" + kOut}),
    [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace llmpress

#endif
