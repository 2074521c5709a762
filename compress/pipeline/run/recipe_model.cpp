#include "compress/pipeline/run/recipe_model.h"

#include <string>
#include <system_error>
#include <utility>
#include <variant>

#include "compress/core/formatted.h"
#include "compress/pipeline/training/random_model.h"

namespace fs = std::filesystem;

namespace llmpress {
namespace {

// A folder that describes a model and holds nothing that could be its weights.
bool has_no_weights(const fs::path& model) {
  if (!fs::is_regular_file(model / "config.json")) return false;
  for (const fs::directory_entry& entry : fs::directory_iterator(model)) {
    const std::string name = entry.path().filename().string();
    if (name.find(".safetensors") != std::string::npos ||
        name.ends_with(".h5") || name.ends_with(".bin") ||
        name.ends_with(".pt") || name.ends_with(".pth")) {
      return false;
    }
  }
  return true;
}

// The student that a stage makes of nothing; null: it needs the model.
const StudentConfig* student_of(const Stage& stage) {
  const auto* const distill = std::get_if<DistillStage>(&stage);
  if (distill != nullptr && distill->teacher.empty()) return nullptr;
  const TrainStage* const train = training_of(stage);
  return train == nullptr || train->student.config.empty() ? nullptr
                                                           : &train->student;
}

// The student that every job begins with; null: not all do, or not with one.
const StudentConfig* common_student(std::span<const VariantJob> jobs) {
  const StudentConfig* common = nullptr;
  for (const VariantJob& job : jobs) {
    const auto transforms = job.plan.transforms();
    if (transforms.empty()) return nullptr;
    const StudentConfig* const student = student_of(*transforms.front());
    if (student == nullptr) return nullptr;
    if (common != nullptr && *common != *student) return nullptr;
    common = student;
  }
  return common;
}

}  // namespace

RecipeModel::RecipeModel(const Recipe& recipe, std::span<const VariantJob> jobs,
                         fs::path scratch, const Ranks& ranks)
    : path_(recipe.model) {
  if (recipe.model.empty()) {
    fail(ErrorCode::kInvalidArgument,
         "{}: no model; write model: PATH or give --model", recipe.origin);
  }
  if (!has_no_weights(recipe.model)) return;
  const StudentConfig* const student = common_student(jobs);
  if (student == nullptr) return;  // open_checkpoint() says what is missing
  path_ = std::move(scratch);
  if (ranks.is_first()) {
    scratch_ = path_;
    fs::remove_all(scratch_);
    write_random_model({.config = student->config,
                        .source = recipe.model,
                        .output = scratch_,
                        .seed = student->seed});
  }
  ranks.barrier();
}

RecipeModel::~RecipeModel() {
  std::error_code ignored;
  if (!scratch_.empty()) fs::remove_all(scratch_, ignored);
}

std::unique_ptr<Checkpoint> RecipeModel::open() const {
  return open_checkpoint(path_);
}

}  // namespace llmpress
