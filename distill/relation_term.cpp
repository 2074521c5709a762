#include "distill/relation_term.h"

#include <numeric>
#include <utility>
#include <vector>

#include "compress/core/formatted.h"
#include "distill/losses/relation_loss.h"

namespace llmpress {
namespace {

AttentionValues values_of(const Architecture& arch, std::size_t block,
                          const char* whose) {
  const auto found = attention_values(arch.block(block));
  if (!found) {
    fail(ErrorCode::kUnsupported,
         "'relation': block {} of the {} has no attention of its own",
         block + 1, whose);
  }
  return *found;
}

std::size_t block_of(const DistillConfig& config, std::size_t layers) {
  if (config.relation_block == 0) return layers - 1;
  if (config.relation_block <= layers) return config.relation_block - 1;
  fail(ErrorCode::kInvalidArgument,
       "'relation_block' is {}, the student has {} blocks",
       config.relation_block, layers);
}

struct Compared {
  RelationKind kind;
  ValueId student;
  const MatrixF* teacher;
};

}  // namespace

RelationTerm::RelationTerm(const DistillConfig& config,
                           const Architecture& student,
                           const Architecture& teacher, Isa isa)
    : kind_(config.relation_of),
      student_block_(block_of(config, student.layers)),
      teacher_block_(
          std::max<std::size_t>(
              1, (student_block_ + 1) * teacher.layers / student.layers) -
          1),
      values_(values_of(student, student_block_, "student")),
      isa_(isa) {
  const AttentionValues theirs = values_of(teacher, teacher_block_, "teacher");
  heads_ = config.relation_heads != 0
               ? config.relation_heads
               : std::gcd(values_.kv_heads, theirs.kv_heads);
  const auto check = [&](const BlockSpec& block, ValueId value,
                         const char* whose) {
    if (block.values[value].width % heads_ == 0) return;
    fail(ErrorCode::kInvalidArgument,
         "'relation_heads': {} do not divide the width {} of the {}'s {}",
         heads_, block.values[value].width, whose, block.values[value].name);
  };
  const auto check_all = [&](const BlockSpec& block,
                             const AttentionValues& values, const char* whose) {
    for (const ValueId v : {values.queries, values.keys, values.values}) {
      check(block, v, whose);
    }
  };
  check_all(student.block(student_block_), values_, "student");
  check_all(teacher.block(teacher_block_), theirs, "teacher");
}

double RelationTerm::run(const AttentionRows& teacher,
                         std::span<const std::size_t> sequences,
                         std::span<const float> row_weights, BlockPass& student,
                         ThreadPool& pool) const {
  const Compared all[] = {
      {RelationKind::kQueries, values_.queries, &teacher.queries},
      {RelationKind::kKeys, values_.keys, &teacher.keys},
      {RelationKind::kValues, values_.values, &teacher.values}};
  std::vector<float> weights(row_weights.begin(), row_weights.end());
  if (kind_ == RelationKind::kAll) {
    for (float& w : weights) w /= 3;
  }
  double sum = 0;
  for (const Compared& one : all) {
    if (kind_ != RelationKind::kAll && kind_ != one.kind) continue;
    const MatrixF& S = student.values[one.student].rows;
    MatrixF& d = student.gradients[one.student];
    if (d.empty()) d = MatrixF(S.rows(), S.cols());
    std::size_t first = 0;
    for (const std::size_t rows : sequences) {
      sum += relation_loss(S.view().rows_slice(first, rows),
                           one.teacher->view().rows_slice(first, rows), heads_,
                           std::span(weights).subspan(first, rows),
                           d.view().rows_slice(first, rows), pool, isa_);
      first += rows;
    }
  }
  return sum;
}

}  // namespace llmpress
