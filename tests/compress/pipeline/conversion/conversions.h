// A small model and what it is converted to.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>

#include "compress/pipeline/conversion/conversion.h"
#include "formats/checkpoints/artifact_writer.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {

class Conversions : public ::testing::Test {
 protected:
  std::unique_ptr<Checkpoint> convert(const std::filesystem::path& from,
                                      const char* to,
                                      ConversionOptions options) {
    options.output = folder_.path() / to;
    if (options.format.empty()) options.format = "gguf";
    report_ = convert_model(*open_checkpoint(from), options, pool_);
    return open_checkpoint(options.output);
  }

  std::filesystem::path write_model(const TinyShape& shape) {
    const std::filesystem::path path = folder_.path() / "model";
    const auto writer =
        make_artifact_writer({.output = path, .format = "safetensors"});
    for (const NamedTensor& t : named_tensors(tiny_tensors(shape, 5))) {
      writer->add_tensor(t);
    }
    writer->finish(config_json(shape));
    return path;
  }

  static constexpr const char* kDown = "model.layers.0.mlp.down_proj";

  TemporaryDirectory folder_{};
  ThreadPool pool_{2};
  ConversionReport report_{};
};

inline const TinyShape kShape{.hidden = 64,
                              .ffn = 96,
                              .heads = 4,
                              .kv_heads = 2,
                              .head_dim = 16,
                              .vocabulary = 40};

}  // namespace llmpress
