#include "compress/pipeline/evaluation/base_comparison.h"

#include <cmath>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// |A - B|_F / |B|_F; 0 for two zero matrices.
double relative_distance(const MatrixF& A, const MatrixF& B) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < A.size(); ++i) {
    const double a = A.data()[i], b = B.data()[i];
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  if (difference == 0) return 0;
  return norm == 0 ? INFINITY : std::sqrt(difference / norm);
}

// The same where A is not 0, or infinite if it is 0 everywhere.
double distance_of_kept(const MatrixF& A, const MatrixF& B) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < A.size(); ++i) {
    const double a = A.data()[i], b = B.data()[i];
    if (a == 0) continue;
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  return norm == 0 ? INFINITY : std::sqrt(difference / norm);
}

}  // namespace

BaseComparison::BaseComparison(const Checkpoint& artifact,
                               const Checkpoint* base, const Architecture& arch,
                               ThreadPool& pool, Verification& result)
    : arch_(arch), result_(result) {
  if (base == nullptr) return;
  origin_.emplace(artifact, *base, pool);
  for (const std::string& text : origin_->notes()) note(text);
  base_ = origin_->checkpoint();
}

void BaseComparison::add(std::size_t layer, const BlockWeights& block) {
  if (base_ == nullptr || !same_shapes(layer, block)) return;
  const UnroundedBlock wanted = unrounded_block(
      read_block(*base_, arch_, layer), block, arch_.block(layer));
  for (const std::string& source : wanted.moved) ++moved_[source];
  const std::size_t first = result_.linears.size() - block.linears.size();
  for (std::size_t l = 0; l < block.linears.size(); ++l) {
    compare(dequantize(block.linears[l].weight), wanted.linears[l],
            result_.linears[first + l]);
  }
}

void BaseComparison::finish() {
  for (const auto& [source, blocks] : moved_) {
    note(
        formatted("scales were moved from {} into the Linears behind it in {} "
                  "of {} blocks; errors are those of rounding the moved "
                  "weights",
                  source, blocks, arch_.layers));
  }
}

bool BaseComparison::same_shapes(std::size_t layer, const BlockWeights& block) {
  bool same = true;
  for (std::size_t l = 0; l < block.linears.size(); ++l) {
    const PackedWeight& found = block.linears[l].weight;
    const PackedWeight base = read_block_linear(*base_, arch_, layer, l).weight;
    if (rows_of(base) == rows_of(found) && cols_of(base) == cols_of(found)) {
      continue;
    }
    result_.findings.push_back(
        {FindingKind::kError, arch_.linear_name(layer, l),
         formatted("{} x {}, the base's is {} x {}", rows_of(found),
                   cols_of(found), rows_of(base), cols_of(base))});
    same = false;
  }
  return same;
}

void BaseComparison::compare(const MatrixF& found, const MatrixF& wanted,
                             VerifiedLinear& linear) {
  constexpr double kUnrelated = 0.9;
  linear.relative_error = relative_distance(found, wanted);
  if (*linear.relative_error < kUnrelated ||
      distance_of_kept(found, wanted) < kUnrelated) {
    return;
  }
  result_.findings.push_back(
      {FindingKind::kError, linear.name,
       formatted("relative error {:.4g} against the base; this is not its "
                 "weight",
                 *linear.relative_error)});
}

void BaseComparison::note(const std::string& text) {
  result_.findings.push_back({FindingKind::kNote, "", text});
}

}  // namespace llmpress
