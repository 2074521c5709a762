// The teacher of a `distill` stage: a model that runs along, or the file of what
// it said, which is written first where it is not there.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>

#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/kernels/cpu.h"
#include "compress/model/decoder.h"
#include "compress/pipeline/training/teacher_cache.h"
#include "distill/teacher.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/tokenizers/tokenizer.h"
#include "recipes/recipe.h"

namespace llmpress {

// Throws Error(kInvalidInput) unless the tokens of both tokenizers are the same,
// one by one, so that distributions over them can be compared.
void check_same_tokens(const Tokenizer& teacher, const Tokenizer& student,
                       const std::filesystem::path& path);

struct StageTeacherJob {
  const DistillStage* stage = nullptr;
  const Checkpoint* base = nullptr;      // the teacher where none is named
  const Tokenizer* tokenizer = nullptr;  // the student's
  std::size_t vocabulary = 0;            // likewise
  const TrainingData* data = nullptr;
  const TrainingData* held_out = nullptr;  // null: none
  std::string text_sha256{}, held_out_sha256{};
  std::filesystem::path work{};  // folder for parts of the file
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
  Progress progress{};
};

class StageTeacher {
 public:
  // Writes the file if there is to be one; where there is, no model is loaded.
  explicit StageTeacher(const StageTeacherJob& job);

  Teacher& teacher();
  RunningTeacher* running() { return running_ ? &*running_ : nullptr; }

 private:
  void store(const StageTeacherJob& job, const Checkpoint& checkpoint);

  std::unique_ptr<Checkpoint> own_{};
  std::optional<Decoder> decoder_{};
  std::optional<RunningTeacher> running_{};
  std::optional<TeacherCache> cache_{};
  std::optional<StoredTeacher> stored_{};
};

}  // namespace llmpress
