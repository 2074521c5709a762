// Adapters that PyTorch trained on the shipped model, against its own logits.
// Skipped where there is no PyTorch.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "compress/model/model_source.h"
#include "compress/pipeline/adapters/adapter_beside.h"
#include "compress/pipeline/adapters/adapter_merge.h"
#include "formats/containers/safetensors.h"
#include "tests/compress/pipeline/adapters/adapter_files.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

std::vector<TokenId> tokens_of(const TensorReader& reference,
                               const std::string& name) {
  const TensorBytes data = reference.read(reference.require(name));
  std::vector<TokenId> tokens;
  for (std::size_t i = 0; i < data.bytes.size(); i += sizeof(std::int64_t)) {
    std::int64_t id = 0;
    std::memcpy(&id, data.bytes.data() + i, sizeof(id));
    tokens.push_back(static_cast<TokenId>(id));
  }
  return tokens;
}

MatrixF logits_of(const Decoder& decoder, std::span<const TokenId> tokens,
                  ThreadPool& pool) {
  const Segment segment{.rows = tokens.size()};
  const MatrixF hidden = decoder.forward(tokens, std::span(&segment, 1), pool);
  return decoder.ends().logits(hidden.view(), pool);
}

TEST(TrainedAdapters, MergedAndBesideEqualPyTorchsLogits) {
  if (std::system("/usr/bin/python3 -c 'import torch, numpy' 2>/dev/null") !=
      0) {
    GTEST_SKIP() << "no PyTorch";
  }
  const TemporaryDirectory directory;
  const std::string base = shipped("tinystories-3.7m").string();
  const std::string command =
      "/usr/bin/python3 " + source_dir() +
      "/bench/lora/train_lora.py --model " + base + " --text " +
      shipped("text/calibration.txt").string() + " --output " +
      directory.path().string() +
      " --steps 8 --batch 2 --context 32 --rank 6 --rate 2e-2";
  ASSERT_EQ(std::system(command.c_str()), 0);
  ThreadPool pool(2);
  const ModelSource model = open_model(base);
  const Decoder plain(*model.checkpoint);
  for (const char* kind : {"lora", "rslora", "dora"}) {
    SCOPED_TRACE(kind);
    const std::vector<WeightedAdapter> adapter{{directory.path() / kind, 1}};
    const AdaptersBeside beside =
        keep_beside(*model.checkpoint, *model.arch, adapter, best_isa(), pool);
    AdapterMerge merge =
        merge_adapters(*model.checkpoint, *model.arch, adapter, {}, pool);
    const auto merged = overlay(*model.checkpoint, std::move(merge.edits));
    const Decoder with(*beside.checkpoint,
                       Decoder::Options{.companion = beside.companion});
    const Decoder into(*merged);
    const auto reference =
        open_safetensors(directory.path() / kind / "reference.safetensors");
    for (const char* prompt : {"0", "1", "2"}) {
      const auto tokens =
          tokens_of(*reference, std::string("tokens.") + prompt);
      const MatrixF wanted =
          read_matrix(*reference, std::string("logits.") + prompt);
      EXPECT_LT(relative_difference(logits_of(with, tokens, pool), wanted),
                1e-5);
      EXPECT_LT(relative_difference(logits_of(into, tokens, pool), wanted),
                1e-5);
      EXPECT_GT(relative_difference(logits_of(plain, tokens, pool), wanted),
                1e-2)
          << "training did nothing";
    }
  }
}

}  // namespace
}  // namespace llmpress
