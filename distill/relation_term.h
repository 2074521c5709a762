// The distance between how two models relate the tokens of a batch to each
// other (losses/relation_loss.h), at one block of each.
#pragma once

#include <cstddef>
#include <span>

#include "compress/model/training/attention_values.h"
#include "distill/distill_config.h"

namespace llmpress {

class RelationTerm {
 public:
  // The student's block is as the configuration says, the teacher's the one
  // that it faces. Throws Error as distill_objective().
  RelationTerm(const DistillConfig& config, const Architecture& student,
               const Architecture& teacher, Isa isa);

  std::size_t student_block() const { return student_block_; }
  std::size_t teacher_block() const { return teacher_block_; }
  // The weighted mean of the relations that are compared, of each of
  // `sequences` rows by itself; its gradients are added to the pass's.
  double run(const AttentionRows& teacher,
             std::span<const std::size_t> sequences,
             std::span<const float> row_weights, BlockPass& student,
             ThreadPool& pool) const;

 private:
  RelationKind kind_;
  std::size_t heads_, student_block_, teacher_block_;
  AttentionValues values_{};  // of the student
  Isa isa_;
};

}  // namespace llmpress
