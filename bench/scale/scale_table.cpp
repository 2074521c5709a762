// The table of docs/scale.md: what GPTQ of well-known shapes takes on 1 to 256
// machines, from the models of time and memory that `plan` uses. Reads and
// writes no model. Usage: scale_table [GFLOP/s of a machine's products]
// [network, GB/s] [disk, GB/s].
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "compress/calibration/stage_plan.h"
#include "compress/model/architecture.h"
#include "compress/pipeline/benchmark/synthetic_model.h"
#include "compress/pipeline/run/memory_model.h"
#include "compress/pipeline/run/run_jobs.h"
#include "compress/pipeline/run/time_model.h"
#include "recipes/recipe_parser.h"

namespace {

using namespace llmpress;

constexpr std::size_t kSamples = 128, kLength = 2048;

// As moonshotai's config.json has it, without keys of other readers.
constexpr const char* kMixtureOf1T = R"({
  "model_type": "deepseek_v3", "vocab_size": 163840, "hidden_size": 7168,
  "intermediate_size": 18432, "moe_intermediate_size": 2048,
  "num_hidden_layers": 61, "num_attention_heads": 64,
  "num_key_value_heads": 64, "n_shared_experts": 1, "n_routed_experts": 384,
  "routed_scaling_factor": 2.827, "kv_lora_rank": 512, "q_lora_rank": 1536,
  "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128,
  "topk_method": "noaux_tc", "n_group": 1, "topk_group": 1,
  "num_experts_per_tok": 8, "moe_layer_freq": 1, "first_k_dense_replace": 1,
  "norm_topk_prob": true, "scoring_func": "sigmoid", "hidden_act": "silu",
  "max_position_embeddings": 131072, "rms_norm_eps": 1e-06,
  "rope_theta": 50000, "attention_bias": false})";

struct Shape {
  std::string name;
  Architecture arch;
};

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const char* name : {"llama-8b", "llama-70b", "llama-405b"}) {
    const std::string config = synthetic_config({.like = name});
    all.push_back({name, parse_architecture(config, name)});
  }
  all.push_back({"mixture of 384 experts, 1T",
                 parse_architecture(kMixtureOf1T, "config.json")});
  return all;
}

ModelSize size_in_bf16(const Architecture& arch) {
  ModelSize size;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (const LinearSpec& linear : arch.block(layer).linears) {
      size.linear_weights += linear.out * linear.in;
    }
  }
  size.linear_bytes = 2 * size.linear_weights;
  size.weights = size.linear_weights + 2 * arch.vocabulary * arch.hidden;
  size.weight_bytes = 2 * size.weights;
  return size;
}

void print_shape(const Shape& shape, const StagePlan& plan,
                 const Machine& machine) {
  const ModelSize size = size_in_bf16(shape.arch);
  // 4 bits, an f16 scale and a zero in 128 weights.
  const auto packed = static_cast<std::size_t>(
      static_cast<double>(size.linear_weights) * 4.16 / 8);
  const std::size_t output = packed + size.weight_bytes - size.linear_bytes;
  for (const std::size_t ranks : {1u, 4u, 16u, 64u, 256u}) {
    const CalibrationSize of_rank =
        share_of_rank({kSamples * kLength, kLength}, ranks);
    const RunWork work =
        work_of(plan, shape.arch, kSamples * kLength, kLength,
                size.weight_bytes, output, packed, KeptInputs(of_rank.tokens));
    const SpreadCost cost = cost_on(work, machine, ranks);
    const MemoryNeed need = memory_need(
        {.plan = &plan,
         .arch = &shape.arch,
         .stored = size,
         .largest_tensor = 2 * shape.arch.vocabulary * shape.arch.hidden,
         .calibration = of_rank});
    std::printf("| %s | %zu | %.2f h | %.0f GB | %.1f GB | %.1f GB |\n",
                ranks == 1 ? shape.name.c_str() : "", ranks,
                cost.seconds / 3600, cost.traffic / 1e9,
                static_cast<double>(need.in_memory) / 1e9,
                static_cast<double>(need.spilled) / 1e9);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int i, double usual) {
    return argc > i ? std::atof(argv[i]) : usual;
  };
  const Machine machine{.products = number(1, 2000) * 1e9,
                        .threads = 32,
                        .disk = number(3, 2) * 1e9,
                        .network = number(2, 3.1) * 1e9};
  const Recipe recipe = parse_recipe(
      "model: m\ncalibration: {text: t}\nstages: [{quantize: {method: gptq, "
      "weights: {bits: 4, group_size: 128}}}]\noutput: {path: out}\n",
      "scale.yaml");
  const StagePlan plan({}, recipe.stages);
  std::printf(
      "| model | machines | time | sent by each | memory of each | with states "
      "in a file |\n|---|---|---|---|---|---|\n");
  for (const Shape& shape : shapes()) print_shape(shape, plan, machine);
  return 0;
}
