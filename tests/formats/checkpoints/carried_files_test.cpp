#include "formats/checkpoints/carried_files.h"

#include <gtest/gtest.h>

#include <set>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/typed_tensors.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class CarriedFiles : public testing::Test {
 protected:
  void put(const std::string& name, const std::string& content = "x") {
    const fs::path path = folder_.path() / name;
    fs::create_directories(path.parent_path());
    write_file_atomically(path, content);
  }
  std::set<std::string> carried() const {
    std::set<std::string> names;
    for (const auto& [name, content] : carried_files(folder_.path())) {
      names.insert(name);
    }
    return names;
  }

  TemporaryDirectory folder_;
};

TEST_F(CarriedFiles, SubFoldersComeAlongWhole) {
  put("tokenizer.json");
  put("additional_chat_templates/tool_use.jinja", "{{ tools }}");
  put("assets/deep/er/config.json");
  put("assets/README.md");
  EXPECT_EQ(carried(),
            (std::set<std::string>{"tokenizer.json", "assets/README.md",
                                   "additional_chat_templates/tool_use.jinja",
                                   "assets/deep/er/config.json"}));
  EXPECT_EQ(carried_files(folder_.path())
                .at("additional_chat_templates/tool_use.jinja"),
            "{{ tools }}");
}

TEST_F(CarriedFiles, WeightsCachesLinksAndHiddenFoldersStayBehind) {
  put("config.json");
  put("model.safetensors");
  put("llmpress.prepacked");
  put(".git/config");
  put("__pycache__/modeling.pyc");
  put("onnx/model.onnx");
  put("onnx/config.json");
  put("original/consolidated.00.pth");
  put("original/params.json");
  put("code/.hidden");
  put("code/__pycache__/a.pyc");
  put("code/modeling.py");
  fs::create_directory_symlink("code", folder_.path() / "linked");
  fs::create_directory_symlink("..", folder_.path() / "code" / "up");
  EXPECT_EQ(carried(), std::set<std::string>{"code/modeling.py"});
}

TEST_F(CarriedFiles, AnArtifactOfEitherKindHoldsTheSubFolders) {
  put("source/additional_chat_templates/a.jinja", "octets \n\x01");
  const fs::path source = folder_.path() / "source";
  for (const std::string format : {"safetensors", "hdf5"}) {
    const fs::path output = folder_.path() / ("out." + format);
    const auto writer = make_artifact_writer(
        {.output = output, .format = format, .source = source});
    writer->add_tensor(
        tensor_of<float>("model.norm.weight", DType::kF32, {2}, {1, 2}));
    writer->finish("{}");
    EXPECT_EQ(carried_files(output).at("additional_chat_templates/a.jinja"),
              "octets \n\x01")
        << format;
  }
}

}  // namespace
}  // namespace llmpress
