// What a recipe says, as plain values: every default filled in, every path
// absolute, every value checked. The YAML form is docs/recipe.md; the reader is
// recipe_parser.h. Nothing here knows YAML.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "distill/distill_config.h"
#include "distill/train_config.h"
#include "distill/tune_config.h"
#include "pruning/prune_config.h"
#include "quantizers/quantize_config.h"
#include "recipes/layer_selection.h"
#include "recipes/source_position.h"

namespace llmpress {

enum class Sampling { kRandom, kSequential };

// What becomes of an expert that calibration showed too few tokens.
enum class ExpertPolicy {
  kNearest,    // without calibration: rounded to nearest, pruned by magnitude
  kAllTokens,  // every expert is calibrated on every token
  kRaise,      // an error
};

// Text, JSONL (field "text") or an HDF5 file of token ids, cut into samples.
struct CalibrationConfig {
  std::filesystem::path text{};
  std::size_t samples = 128;
  std::size_t sequence_length = 2048;  // tokens of a sample
  Sampling sampling = Sampling::kRandom;
  std::uint64_t seed = 0;
  ExpertPolicy experts = ExpertPolicy::kNearest;
  std::size_t expert_min_tokens = 32;

  bool operator==(const CalibrationConfig&) const = default;
};

// Merges a PEFT adapter into the dense weights: W += scale * delta(adapter).
struct MergeLoraStage {
  std::filesystem::path adapter{};
  double scale = 1.0;
  SourcePosition position{};

  bool operator==(const MergeLoraStage&) const = default;
};

struct PruneStage {
  PruneConfig config{};
  LayerSelection layers{};
  SourcePosition position{};

  bool operator==(const PruneStage&) const = default;
};

// Moves scales between neighbours so that rounding hurts less; the function of
// the model stays the same.
struct SmoothStage {
  // A method that moves scales, and its settings.
  QuantizeConfig config{.method = std::string(kDefaultScaling)};
  // The grid that a search rounds to. Absent: that of the quantize stage that
  // follows.
  std::optional<WeightScheme> weights{};
  SourcePosition position{};

  bool operator==(const SmoothStage&) const = default;
};

// Randomized Hadamard rotation of the residual stream, fused into the weights
// (QuaRot, arXiv:2404.00456); `online` adds the rotations that run at
// inference.
struct RotateStage {
  std::uint64_t seed = 0;
  bool online = false;
  SourcePosition position{};

  bool operator==(const RotateStage&) const = default;
};

// An experiment: multiplies the `channels` largest gains of every norm by
// `factor` and divides the matching columns of its consumers, which leaves the
// function as it is and makes activations as hard to round as a large model's.
struct InjectOutliersStage {
  double factor = 60;
  std::size_t channels = 2;
  SourcePosition position{};

  bool operator==(const InjectOutliersStage&) const = default;
};

struct QuantizeStage {
  QuantizeConfig config{};
  std::string scheme{};  // the preset's name as written, or empty; informative
  LayerSelection layers{};
  // An importance matrix (formats/gguf/imatrix.h) instead of calibration, for
  // methods that take one; empty: none.
  std::filesystem::path importance{};
  // Method "auto" only, exactly one of them: bits per weight over the selected
  // Linears, or the size of their packed form.
  std::optional<double> target_bits{};
  std::optional<std::uint64_t> target_bytes{};
  SourcePosition position{};

  bool operator==(const QuantizeStage&) const = default;
};

// Calibrated scales for keys and values in 8 bits, one of each for every
// attention module (kv_cache_scheme of compressed-tensors); loaders round to
// them at run time.
enum class KvScaleType { kFp8, kInt8 };
struct QuantizeKvCacheStage {
  KvScaleType type = KvScaleType::kFp8;
  SourcePosition position{};

  bool operator==(const QuantizeKvCacheStage&) const = default;
};

// What is trained: the model as it is when the stage begins, every `every`-th
// block of it, or a model of the shape that a config.json says with random
// weights.
struct StudentConfig {
  std::size_t every = 1;
  std::filesystem::path config{};
  std::uint64_t seed = 0;  // of the random weights

  bool operator==(const StudentConfig&) const = default;
};

enum class KvCacheType { kF32, kInt8, kFp8, kInt4 };

// Training that sees the rounding to come: Linears learn on the grids of the
// `quantize` stages that follow, and rounding is passed straight through.
struct QuantizationAware {
  bool learn_scales = true;  // LSQ (arXiv:1902.08153); else fitted to weights
  bool activations = true;   // inputs are rounded as those stages say
  KvCacheType kv_cache = KvCacheType::kF32;  // as keys and values are rounded

  bool operator==(const QuantizationAware&) const = default;
};

// Parts of a model that can learn alone.
enum class LearningPart {
  kScales,  // of packed Linears
  kZeros,   // of packed Linears, where they are real numbers
  kNorms,   // their gains and biases
  kBiases,  // of Linears and norms (BitFit, arXiv:2106.10199)
};

// One of several texts that batches are drawn from (distill/domains.h).
struct DomainConfig {
  std::filesystem::path text{}, held_out{};  // as TrainStage's
  double weight = 1;                         // at the beginning
  double reference_loss = 0;                 // nats a token
  SourcePosition position{};

  bool operator==(const DomainConfig&) const = default;
};

// Trains on a text's next tokens.
struct TrainStage {
  TrainConfig config{};
  std::filesystem::path text{};      // as CalibrationConfig::text
  std::filesystem::path held_out{};  // to evaluate on; empty: none
  // Instead of both; empty: one text.
  std::vector<DomainConfig> domains{};
  double domain_rate = 1;  // of their weights, at every evaluation
  // Empty: every number that is stored as a float.
  std::vector<LearningPart> learn{};
  StudentConfig student{};
  std::optional<QuantizationAware> aware{};
  SourcePosition position{};

  bool operator==(const TrainStage&) const = default;
};

// Trains towards what a teacher says of a text.
struct DistillStage {
  TrainStage train{};
  DistillConfig loss{};
  std::filesystem::path teacher{};  // empty: the recipe's model
  // The file that holds what the teacher said; empty: it runs along.
  std::filesystem::path teacher_cache{};
  SourcePosition position{};

  bool operator==(const DistillStage&) const = default;
};

// Trains an adapter beside the frozen model. Written as it is (OutputConfig of
// format "peft") it is all that the run makes; otherwise it is merged, and the
// stages after it find the merged model.
struct TuneStage {
  TrainStage train{.config = {.learning_rate = 2e-4, .weight_decay = 0}};
  TuneConfig adapter{};
  LayerSelection layers{.targets = {"Linear"}};
  SourcePosition position{};

  bool operator==(const TuneStage&) const = default;
};

using Stage =
    std::variant<MergeLoraStage, PruneStage, SmoothStage, RotateStage,
                 InjectOutliersStage, QuantizeStage, QuantizeKvCacheStage,
                 TrainStage, DistillStage, TuneStage>;

// "merge_lora", "prune", ...: the key of a stage in a recipe.
std::string_view stage_name(const Stage& stage);
const SourcePosition& position_of(const Stage& stage);
// What a stage that trains says of the training; null: it does not train.
const TrainStage* training_of(const Stage& stage);

// What to do with a Linear that no loader of the output's format would take
// (formats/linears/loader_rules.h).
enum class Incompatible {
  kOwn,     // write it as ours, which they refuse, and say so
  kRefuse,  // refuse the recipe
  kSkip,    // leave the Linear as it is
  kAdapt,   // change what can be: smaller groups, static groups, zeros stored
};

// The output format of an adapter by itself.
inline constexpr std::string_view kAdapterFormat = "peft";

struct OutputConfig {
  std::filesystem::path path{};
  // A row of output_formats(), or kAdapterFormat.
  std::string format = "compressed-tensors";
  std::uint64_t max_shard_size = 5'000'000'000;  // bytes
  Incompatible incompatible = Incompatible::kOwn;

  bool is_adapter() const { return format == kAdapterFormat; }
  bool operator==(const OutputConfig&) const = default;
};

// What becomes of activations that a model stores as floats.
enum class EvaluatedActivations {
  kStored,  // nothing
  kInt8,    // rounded by blocks, for speed
};

enum class Protocol { kWindows, kLlamaCpp, kStrided };

struct EvaluateConfig {
  std::filesystem::path text{};
  std::size_t context = 2048;  // tokens of a window
  Protocol protocol = Protocol::kWindows;
  std::size_t stride = 512;     // kStrided only
  std::size_t max_windows = 0;  // 0: all
  KvCacheType kv_cache = KvCacheType::kF32;
  bool rotate_keys = false;  // Hadamard transform of keys before the cache
  EvaluatedActivations activations = EvaluatedActivations::kStored;

  bool operator==(const EvaluateConfig&) const = default;
};

// One of several results of one run: the recipe's stages, then these.
struct Variant {
  std::string name{};  // unique; used in file names: [A-Za-z0-9._-]+
  std::vector<Stage> stages{};
  std::optional<OutputConfig> output{};
  SourcePosition position{};

  bool operator==(const Variant&) const = default;
};

struct Recipe {
  std::string origin{};  // the recipe file as named by the caller, for messages
  std::string name{};
  std::string description{};
  std::filesystem::path model{};  // empty: must be given on the command line
  std::optional<CalibrationConfig> calibration{};
  std::vector<Stage> stages{};
  std::optional<OutputConfig> output{};  // absent when there are variants
  std::vector<Variant> variants{};       // empty: one result, `output`
  std::optional<EvaluateConfig> evaluate{};
  std::optional<std::filesystem::path> report{};
  // Instruction set of the kernels, by name; empty: the best there is.
  std::string isa{};
  // Bytes; 0: as much as the work takes.
  std::uint64_t memory_limit = 0;
  // A folder for what the limit leaves no room for; empty: beside the output.
  std::filesystem::path scratch{};

  // All that says what comes out: not `origin`, `memory_limit`, `scratch`.
  bool operator==(const Recipe& other) const;
};

}  // namespace llmpress
