// A small real input for every reader of the program, made by its own writers:
// what mutation_test.cpp damages, and seeds for the fuzzers.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>

#include "compress/pipeline/reports/layer_report_json.h"
#include "formats/adapters/peft_adapter.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/hdf5_tables.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "tests/compress/model/model_forms.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/formats/tokenizers/tiny_tokenizer.h"
#include "tests/places.h"

namespace llmpress {

class SmallInputs {
 public:
  explicit SmallInputs(std::filesystem::path folder)
      : folder_(std::move(folder)) {
    write_texts();
    write_models();
    write_forms();
    write_adapter();
    write_recipes();
    for (const char* name : {"w4", "nf4", "w4.h5", "mlx", "fp8"}) {
      command("run " + path(std::string(name) + ".yaml") + " --output " +
              path(name));
    }
    command("convert " + path("model") + " " + path("model.gguf") +
            " --format gguf --type q4_0");
    command("convert " + path("pieces") + " " + path("pieces.gguf") +
            " --format gguf");
    for (const char* name : {"im.gguf", "im.dat"}) {
      command("imatrix " + path("model") + " --text " + path("ids.h5") +
              " --samples 2 --sequence-length 8 --output " + path(name));
    }
  }

  std::string path(const std::string& name) const {
    return (folder_ / name).string();
  }
  std::string content(const std::string& name) const {
    return read_file(folder_ / name);
  }

 private:
  void write(const std::string& name, const std::string& text) const {
    write_file_atomically(folder_ / name, text);
  }

  void command(const std::string& arguments) const {
    const std::string line =
        program() + " " + arguments + " --quiet >/dev/null";
    if (std::system(line.c_str()) != 0) throw std::runtime_error(line);
  }

  void write_texts() const {
    std::string text, lines;
    for (int i = 0; i < 40; ++i) {
      const std::string sentence = "The cat sat, and then it ran. ";
      text += sentence;
      lines += "{\"text\": \"" + sentence + "\"}\n";
    }
    write("text.txt", text);
    write("text.jsonl", lines);
    TokenTable table{.samples = 4, .length = 32};
    for (std::uint32_t i = 0; i < 128; ++i) table.ids.push_back(i);
    write_token_table(folder_ / "ids.h5", table);
  }

  void write_models() const {
    const TinyShape shape{.hidden = 32,
                          .ffn = 64,
                          .layers = 1,
                          .heads = 2,
                          .kv_heads = 2,
                          .head_dim = 16,
                          .vocabulary = 258};
    const std::string tokenizer =
        testing::byte_level_tokenizer({{"t", "h"}, {"th", "e"}}).dump();
    const auto tensors = named_tensors(tiny_tensors(shape, 3));
    const auto put = [&](ArtifactOptions options) {
      options.output = folder_ / options.output;
      const auto writer = make_artifact_writer(options);
      for (const NamedTensor& tensor : tensors) writer->add_tensor(tensor);
      writer->add_file("tokenizer.json", tokenizer);
      writer->add_file("tokenizer_config.json", "{\"add_bos_token\": false}");
      writer->finish(config_json(shape));
    };
    put({.output = "model", .format = "safetensors"});
    put({.output = "sharded",
         .format = "safetensors",
         .max_shard_bytes = 40'000});
    put({.output = "model.h5", .format = "hdf5"});
    write_torchao(tensors, config_json(shape));
    put({.output = "pieces", .format = "safetensors"});
    std::filesystem::remove(folder_ / "pieces/tokenizer.json");
    std::filesystem::copy_file(
        source_dir() + "/models/tinystories-3.7m/tokenizer.model",
        folder_ / "pieces/tokenizer.model");
  }

  // Every projection as an Int8Tensor.
  void write_torchao(const std::vector<NamedTensor>& tensors,
                     std::string config) const {
    std::vector<NamedTensor> stored;
    std::map<std::string, std::string> metadata;
    for (const NamedTensor& t : tensors) {
      if (!t.name.ends_with("_proj.weight")) {
        stored.push_back(t);
        continue;
      }
      const std::string parts =
          t.name.substr(0, t.name.size() - 6) + "_weight_";
      const std::size_t out = t.shape[0], in = t.shape[1];
      stored.push_back(tensor_of(parts + "qdata", DType::kI8, {out, in},
                                 std::vector<std::int8_t>(out * in, 3)));
      stored.push_back(tensor_of(parts + "scale", DType::kF32, {out, 2},
                                 std::vector<float>(out * 2, 0.1f)));
      metadata[t.name] =
          R"({"_type": "Int8Tensor", "_data": {"block_size": [1, )" +
          std::to_string(in / 2) + "]}}";
    }
    config.insert(config.rfind('}'),
                  R"(, "quantization_config": {"quant_method": "torchao"})");
    std::filesystem::create_directories(folder_ / "torchao");
    write("torchao/config.json", config);
    write("torchao/model.safetensors", write_safetensors(stored, metadata));
  }

  // Weights as other programs store them: without a tokenizer, but for that of
  // llama2.c.
  void write_forms() const {
    const testing::ModelForms forms(
        {.hidden = 24, .ffn = 64, .layers = 1, .vocabulary = 16});
    forms.write_torch_folder(folder_ / "torch");
    forms.write_mistral_folder(folder_ / "mistral");
    forms.write_meta_folder(folder_ / "meta", 2, true);
    testing::write_octets(folder_ / "old.bin", forms.llama2c_file(0));
    testing::write_octets(folder_ / "new.bin", forms.llama2c_file(1));
    std::string pieces = testing::octets(std::uint32_t{8});
    for (int id = 0; id < 16; ++id) {
      const std::string piece(1, static_cast<char>('a' + id));
      pieces += testing::octets(-1.0f * static_cast<float>(id)) +
                testing::octets(std::uint32_t{1}) + piece;
    }
    write("tokenizer.bin", pieces);
  }

  void write_adapter() const {
    PeftModule module;
    module.A = MatrixF(std::vector<float>(4 * 32, 0.1f), 4, 32);
    module.B = MatrixF(std::vector<float>(32 * 4, 0.2f), 32, 4);
    module.scaling = 2;
    write_peft_adapter(folder_ / "adapter",
                       {{"model.layers.0.self_attn.q_proj", module}}, {});
  }

  void write_recipes() const {
    const auto recipe = [&](const std::string& name, const std::string& stages,
                            const std::string& format) {
      write(name + ".yaml", "model: " + path("model") +
                                "\ncalibration: {text: " + path("ids.h5") +
                                ", samples: 4, sequence_length: 16}\n" +
                                "stages:\n  - quantize: " + stages +
                                "\noutput: {format: " + format + "}\n");
    };
    const std::string w4 = "{method: rtn, weights: {bits: 4, group_size: 32}}";
    recipe("w4", w4, "compressed-tensors");
    recipe("w4.h5", w4, "hdf5");
    recipe("mlx", w4, "mlx");
    recipe("fp8",
           "{method: rtn, weights: {type: fp8, block_size: 16}, input: {type: "
           "fp8, range: group, group_size: 16}}",
           "compressed-tensors");
    for (const std::string file : {"im.gguf", "im.dat"}) {
      recipe(file, "{method: imatrix, importance: " + file + "}", "hdf5");
    }
    recipe("nf4", "{method: nf4}", "bitsandbytes");
  }

  std::filesystem::path folder_;
};

}  // namespace llmpress
