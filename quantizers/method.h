// The table of methods that turn one Linear's weight into a packed weight. A
// method's own file has its row, which says all that others ask of it: what it
// takes, the keys of a recipe, what its weights look like. The recipe's reader,
// the reference page, the checks and the pipeline read rows; they know no
// method by name. A new method: its file pair, its settings in
// quantize_config.h, a line in method.cpp.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/damping.h"
#include "compress/core/input_stats.h"
#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "compress/core/setting.h"
#include "quantizers/block_weight.h"
#include "quantizers/quantize_config.h"

namespace llmpress {

struct FoundScales;   // scaled_consumers.h
struct ScaleRequest;  // scaled_consumers.h

// Large enough that rows solved together pay for reading the inverse once more.
inline constexpr std::size_t kSolvedBytes = std::size_t{128} << 20;

struct QuantizeRequest {
  ConstMatrixView W{};  // [out, in]
  // [out, in] or empty: weights that are to be 0 (where the mask is 0) after
  // pruning. Methods that pay for removal (`pays_for_removal`) read it; those
  // that round each weight by itself keep zeros of W as they are.
  MatrixView<const std::uint8_t> mask{};
  const InputStats* stats = nullptr;  // what the row's `needs` asked for
  const QuantizeConfig* config = nullptr;
  ThreadPool* pool = nullptr;
  std::string_view name{};  // of the Linear, for messages
  // For requests with the same stats; null: not shared. With several ranks all
  // of them make the request.
  SharedInverse* inverse = nullptr;
  // Of a copy in float32 of so many rows of W, while they are solved; the result
  // does not depend on it.
  std::size_t solved_bytes = kSolvedBytes;
};

struct QuantizeResult {
  PackedWeight weight{};
  // How the Linear's input is rounded at run time: `QuantizeConfig::input` with
  // static ranges filled in from the statistics, or what the method demands.
  ActivationQuant input{};
  // Mean squared error of the output per token and output, tr((W-W')S(W-W')^T)
  // / out with S = E[x x^T]; with identity S where no second moment is known.
  double output_error = 0;
  double damping_fraction = 0;       // that was needed; 0: no Hessian
  std::vector<std::string> notes{};  // whatever was changed, clamped, skipped
};

enum class MethodRole {
  kRounds,            // by itself
  kMovesScales,       // between neighbours; config.solver rounds
  kChoosesPrecision,  // of each Linear under a budget; config.solver rounds
};

// Types of weights that a method rounds to.
enum class WeightKinds { kAny, kIntegers, kIntegersAndBlocks, kTables };

struct QuantizerMethod {
  std::string_view name;     // "gptq"
  std::string_view summary;  // one line of Markdown
  std::string_view paper;    // "arXiv:2210.17323"
  MethodRole role = MethodRole::kRounds;
  WeightKinds weights = WeightKinds::kAny;
  StatsNeeds (*needs)(const QuantizeConfig&) = nullptr;
  QuantizeResult (*quantize)(const QuantizeRequest&) = nullptr;

  // --- what a recipe says

  // Keys of the section with the method's name, or of the `quantize` stage
  // itself, where they belong to the solver too.
  std::span<const Setting<QuantizeConfig>> settings{};
  bool settings_in_stage = false;
  // What a stage without a `scheme` starts from: a preset, or the default
  // weights in groups of so many.
  std::string_view scheme{};
  std::int64_t group_size = WeightScheme{}.group_size;
  // What contradicts in the settings, or between them and `weights` or `input`.
  std::optional<SettingFault> (*check)(const QuantizeConfig&) = nullptr;
  // Fills in what follows from the settings.
  void (*settle)(QuantizeConfig&) = nullptr;
  std::string_view uncalibrated_by{};  // the setting that needs no calibration

  // --- what the pipeline asks

  // `square_mean` of InputStats is all that it reads, and may come from a file.
  bool takes_importance = false;
  bool solves = false;  // may be config.solver
  // Inside a block its Linears learn together, on the block's output in the
  // uncompressed model (block_weight.h), as long as the schedule says;
  // `quantize` is for a Linear by itself. Null: it learns nothing.
  std::unique_ptr<BlockWeight> (*learn_in_block)(const BlockWeightRequest&) =
      nullptr;
  BlockSchedule (*schedule)(const QuantizeConfig&) = nullptr;
  // What makes the weights that learning starts from; null, or none: W rounded
  // to nearest.
  std::optional<QuantizeConfig> (*start)(const QuantizeConfig&) = nullptr;
  // Whether each row of W [out, in] is rounded to nearest by itself, without
  // statistics, so that W may come some rows at a time (row_rounding.h).
  bool (*rounds_rows_apart)(const QuantizeConfig&, std::size_t in) = nullptr;
  // `quantize` shares the rows of W among the ranks of the request's inverse.
  bool shares_rows = false;
  bool pays_for_removal = false;  // reads QuantizeRequest::mask
  // kMovesScales: the scales of one group, and what their search needs.
  FoundScales (*find_scales)(const ScaleRequest&) = nullptr;
  StatsNeeds (*scale_needs)(const QuantizeConfig&) = nullptr;
  // Of how many tokens, about; 0, or null: of all.
  std::size_t (*scale_tokens)(const QuantizeConfig&) = nullptr;
  bool scales_into_linears = false;  // else into norms only
  // Of inputs that the method treats apart, which reports then count.
  double (*outlier_threshold)(const QuantizeConfig&) = nullptr;
  // What the method's weights have that a weight rounded to nearest has not, as
  // far as it decides how they are stored.
  void (*mark)(const QuantizeConfig&, PackedWeight&,
               ActivationQuant&) = nullptr;
  // Whether this method alone makes such weights; its settings, then.
  bool (*made)(const PackedWeight&, const ActivationQuant&,
               QuantizeConfig&) = nullptr;
  // W in the form of `stored`, without calibration, where that form is the
  // method's own.
  std::optional<PackedWeight> (*round_like)(const PackedWeight& stored,
                                            ConstMatrixView W,
                                            const WeightScheme&,
                                            ThreadPool&) = nullptr;

  bool block_wise() const { return learn_in_block != nullptr; }
  bool moves_scales() const { return role == MethodRole::kMovesScales; }
  bool chooses_precision() const {
    return role == MethodRole::kChoosesPrecision;
  }
  bool delegates() const { return role != MethodRole::kRounds; }
  // Whether a section of the method's name holds its settings.
  bool has_section() const { return !settings.empty() && !settings_in_stage; }
};

std::span<const QuantizerMethod> quantizer_methods();
// Throws Error(kInvalidArgument) naming the methods there are.
const QuantizerMethod& find_quantizer_method(std::string_view name);
const QuantizerMethod& method_of(const QuantizeConfig& config);
// The method that rounds at last: config's own or its solver. Throws
// Error(kInvalidArgument) for a solver that is none.
const QuantizerMethod& rounding_method(const QuantizeConfig& config);

// `config`, rounding to nearest if its method needs statistics.
QuantizeConfig without_calibration(const QuantizeConfig& config);

// The request carried out by its configuration's method. Scales that f16 does
// not hold are stored as f32, which a note says.
QuantizeResult quantize_weight(const QuantizeRequest& request);

}  // namespace llmpress
