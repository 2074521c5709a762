#include "compress/pipeline/run/artifact_base.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/surgery/structured_shape.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/hdf5_file.h"
#include "quantizers/scaled_consumers.h"
#include "recipes/recipe_parser.h"

namespace llmpress {
namespace {

std::optional<std::string> carried_file(const Checkpoint& artifact,
                                        const std::string& name) {
  if (std::filesystem::is_directory(artifact.path())) {
    const auto file = artifact.path() / name;
    if (!std::filesystem::exists(file)) return std::nullopt;
    return read_file(file);
  }
  if (!is_hdf5_file(artifact.path())) return std::nullopt;
  const auto files = read_hdf5_files(artifact.path());
  const auto found = files.find(name);
  if (found == files.end()) return std::nullopt;
  return found->second;
}

// The stages of the variant that the artifact is of.
std::span<const Stage> own_stages(const Recipe& recipe,
                                  const Checkpoint& artifact) {
  const std::string provenance =
      carried_file(artifact, "llmpress.json").value_or("{}");
  const auto json = nlohmann::json::parse(provenance, nullptr, false);
  if (!json.is_object() || !json.contains("variant")) return {};
  for (const Variant& variant : recipe.variants) {
    if (json["variant"] == variant.name) return variant.stages;
  }
  return {};
}

bool removes_parts(const StagePlan& plan) {
  return std::ranges::any_of(plan.transforms(), [](const Stage* stage) {
    return std::holds_alternative<PruneStage>(*stage);
  });
}

bool trains(const StagePlan& plan) {
  return std::ranges::any_of(plan.transforms(), [](const Stage* stage) {
    return training_of(*stage) != nullptr;
  });
}

double squared_error(const MatrixF& V, const MatrixF& W) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < W.size(); ++i) {
    const double w = W.data()[i], d = V.data()[i] - w;
    error += d * d;
    norm += w * w;
  }
  return norm > 0 ? error / norm : error;
}

// s of g / s, gains as they multiply; 1 where a gain is 0.
std::vector<float> gain_ratios(const NormWeights& base,
                               const NormWeights& artifact) {
  std::vector<float> s(base.gain.size(), 1.0f);
  for (std::size_t i = 0; i < s.size(); ++i) {
    const float ratio =
        (base.gain[i] + base.offset) / (artifact.gain[i] + artifact.offset);
    if (std::isfinite(ratio) && ratio > 0) s[i] = ratio;
  }
  return s;
}

// s of rows w / s, by least squares over rounded rows v: <w, w> / <v, w>.
std::vector<float> row_ratios(const MatrixF& W, const MatrixF& V,
                              std::size_t count) {
  std::vector<float> s(count, 1.0f);
  const std::size_t first = W.rows() - count;
  for (std::size_t i = 0; i < count; ++i) {
    double ww = 0, vw = 0;
    for (std::size_t k = 0; k < W.cols(); ++k) {
      const double w = W(first + i, k);
      ww += w * w;
      vw += w * V(first + i, k);
    }
    if (ww > 0 && vw > 0) s[i] = static_cast<float>(ww / vw);
  }
  return s;
}

class ScaleMatcher {
 public:
  ScaleMatcher(const BlockWeights& base, const BlockWeights& artifact,
               const BlockSpec& spec)
      : base_(base), artifact_(artifact), spec_(spec) {
    for (const LinearWeights& linear : base.linears) {
      result_.linears.push_back(dequantize(linear.weight));
    }
    for (const LinearWeights& linear : artifact.linears) {
      found_.push_back(dequantize(linear.weight));
    }
  }

  UnroundedBlock match() {
    for (const ScaleGroup& group : spec_.scale_groups) try_group(group);
    return std::move(result_);
  }

 private:
  std::vector<float> scales_of(const ScaleGroup& group) const {
    if (!group.source_norm.empty()) {
      return gain_ratios(base_.norms.at(group.source_norm),
                         artifact_.norms.at(group.source_norm));
    }
    const std::size_t source = *group.source_linear;
    return row_ratios(result_.linears[source], found_[source],
                      result_.linears[group.consumers.front()].cols());
  }

  void try_group(const ScaleGroup& group) {
    const std::vector<float> s = scales_of(group);
    std::vector<std::size_t> touched = group.consumers;
    std::vector<MatrixF> scaled;
    for (const std::size_t c : group.consumers) {
      scaled.push_back(scale_columns(result_.linears[c].view(), s));
    }
    if (group.source_linear) {
      touched.push_back(*group.source_linear);
      scaled.push_back(result_.linears[*group.source_linear]);
      unscale_rows_in_place(scaled.back().view(), s);
    }
    double before = 0, after = 0;
    for (std::size_t k = 0; k < touched.size(); ++k) {
      before += squared_error(found_[touched[k]], result_.linears[touched[k]]);
      after += squared_error(found_[touched[k]], scaled[k]);
    }
    if (!(after < before)) return;
    for (std::size_t k = 0; k < touched.size(); ++k) {
      result_.linears[touched[k]] = std::move(scaled[k]);
    }
    // What rounding alone makes of rows is not worth a word.
    constexpr double kMoved = 0.5;
    if (after > kMoved * before) return;
    result_.moved.push_back(group.source_linear
                                ? spec_.linears[*group.source_linear].name
                                : group.source_norm);
  }

  const BlockWeights& base_;
  const BlockWeights& artifact_;
  const BlockSpec& spec_;
  std::vector<MatrixF> found_;
  UnroundedBlock result_;
};

}  // namespace

ArtifactBase::ArtifactBase(const Checkpoint& artifact, const Checkpoint& base,
                           ThreadPool& pool)
    : top_(&base) {
  const auto text = carried_file(artifact, "recipe.yaml");
  if (!text) return;
  try {
    recipe_ = parse_recipe(*text, artifact.path() / "recipe.yaml");
    plan_ = std::make_unique<StagePlan>(recipe_.stages,
                                        own_stages(recipe_, artifact));
    const bool learned = trains(*plan_);
    if (learned || removes_parts(*plan_)) {
      notes_.push_back(formatted(
          "its recipe {}, so that its Linears have no counterpart in the base: "
          "no errors are measured",
          learned ? "trains the model" : "takes parts of the model away"));
      top_ = nullptr;
      return;
    }
    if (plan_->transforms().empty()) return;
    transformed_ = std::make_unique<TransformedModel>(base, *plan_, pool);
    top_ = &transformed_->checkpoint();
    std::string names;
    for (const Stage* stage : plan_->transforms()) {
      names += (names.empty() ? "" : ", ") + std::string(stage_name(*stage));
    }
    notes_.push_back("compared with the base after its recipe's " + names);
  } catch (const Error& e) {
    notes_.push_back(
        formatted("its recipe cannot be carried out on the base, which is "
                  "compared as it is: {}",
                  e.what()));
  }
}

UnroundedBlock unrounded_block(const BlockWeights& base,
                               const BlockWeights& artifact,
                               const BlockSpec& spec) {
  return ScaleMatcher(base, artifact, spec).match();
}

}  // namespace llmpress
