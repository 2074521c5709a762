#include "compress/pipeline/training/stage_teacher.h"

#include <algorithm>
#include <string>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/model/model_files.h"
#include "compress/model/model_source.h"
#include "compress/model/tensor_places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

TeacherCacheJob cache_job(const StageTeacherJob& job,
                          const Checkpoint& teacher) {
  const DistillStage& stage = *job.stage;
  const std::size_t held_out =
      job.held_out == nullptr ? 0
                              : std::min(job.held_out->sequences(),
                                         stage.train.config.evaluate_sequences);
  const std::size_t vocabulary =
      std::min(job.vocabulary, read_architecture(teacher).vocabulary);
  return {.path = stage.teacher_cache,
          .keys = {{"llmpress_teacher_cache", "1"},
                   {"teacher_sha256", model_sha256(teacher, *job.pool)},
                   {"tokenizer_sha256", job.tokenizer->sha256},
                   {"text_sha256", job.text_sha256},
                   {"held_out_sha256", job.held_out_sha256},
                   {"sequence_length",
                    formatted("{}", job.data->sequence_length())},
                   {"sequences", formatted("{}", job.data->sequences())},
                   {"held_out_sequences", formatted("{}", held_out)},
                   {"top_k", formatted("{}", stage.loss.top_k)},
                   {"temperature", formatted("{}", stage.loss.temperature)},
                   {"vocabulary", formatted("{}", vocabulary)}},
          .text = job.data,
          .held_out = job.held_out,
          .held_out_sequences = held_out,
          .top_k = stage.loss.top_k,
          .vocabulary = vocabulary,
          .temperature = static_cast<float>(stage.loss.temperature)};
}

}  // namespace

void check_same_tokens(const Tokenizer& teacher, const Tokenizer& student,
                       const fs::path& path) {
  if (teacher.sha256 == student.sha256) return;
  const std::size_t theirs = teacher.vocabulary_size(),
                    ours = student.vocabulary_size();
  for (std::size_t id = 0; id < std::min(theirs, ours); ++id) {
    const TokenId ids[] = {static_cast<TokenId>(id)};
    const std::string their = teacher.decode(ids), our = student.decode(ids);
    if (their == our) continue;
    fail(ErrorCode::kInvalidInput,
         "{}: the teacher's token {} is '{}', the student's '{}': their "
         "distributions cannot be compared",
         path, id, their, our);
  }
  if (theirs == ours) return;
  fail(ErrorCode::kInvalidInput,
       "{}: the teacher has {} tokens, the student {}: their distributions "
       "cannot be compared",
       path, theirs, ours);
}

StageTeacher::StageTeacher(const StageTeacherJob& job) {
  const DistillStage& stage = *job.stage;
  const Checkpoint* checkpoint = job.base;
  if (!stage.teacher.empty()) {
    own_ = open_checkpoint(stage.teacher);
    checkpoint = own_.get();
    check_same_tokens(*load_model_tokenizer(stage.teacher), *job.tokenizer,
                      stage.teacher);
  }
  if (!stage.teacher_cache.empty()) {
    store(job, *checkpoint);
    return;
  }
  decoder_.emplace(*checkpoint,
                   Decoder::Options{.isa = job.isa, .progress = job.progress});
  running_.emplace(stage.loss, *decoder_, job.vocabulary, job.isa);
}

void StageTeacher::store(const StageTeacherJob& job,
                         const Checkpoint& checkpoint) {
  const TeacherCacheJob cache = cache_job(job, checkpoint);
  stored_.emplace(
      job.stage->loss,
      [this](const TrainingData& data, std::size_t sequence,
             std::size_t token) { return cache_->row(data, sequence, token); },
      cache.vocabulary, job.isa);
  // A call that was killed may have left something beside the file.
  if (!fs::exists(cache.path) || fs::exists(job.work)) {
    const Decoder teacher(
        checkpoint, Decoder::Options{.isa = job.isa, .progress = job.progress});
    write_teacher_cache(cache,
                        {.teacher = &teacher,
                         .batch_size = job.stage->train.config.batch_size,
                         .work = job.work,
                         .progress = job.progress,
                         .pool = job.pool});
  }
  cache_.emplace(cache);
}

Teacher& StageTeacher::teacher() {
  if (running_) return *running_;
  return *stored_;
}

}  // namespace llmpress
