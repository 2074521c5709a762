#include "compress/model/ops/attention_prefix.h"

#include <algorithm>
#include <vector>

#include "compress/model/ops/rows_before.h"

namespace llmpress {

MatrixF behind_prefix(ConstMatrixView prefix, ConstMatrixView rows) {
  MatrixF joined(prefix.rows() + rows.rows(), rows.cols());
  std::ranges::copy(prefix.data(), joined.data().begin());
  std::ranges::copy(
      rows.data(),
      joined.view().rows_slice(prefix.rows(), rows.rows()).data().begin());
  return joined;
}

void attention_backward_behind(const KvPrefix& prefix,
                               const AttentionPass& pass, ConstMatrixView dO,
                               std::span<const Segment> segments,
                               const AttentionConfig& config,
                               const AttentionGradients& gradients,
                               KvPrefix* own, ThreadPool& pool, Isa isa) {
  const std::size_t tokens = prefix.keys.rows();
  const RowsBefore padded(segments, tokens);
  std::vector<std::size_t> sequences;
  for (const Segment& segment : segments) {
    sequences.push_back(segment.rows + tokens);
  }
  const MatrixF Q = padded.join(pass.Q), O = padded.join(pass.O);
  const MatrixF K = padded.join(pass.K, prefix.keys.view());
  const MatrixF V = padded.join(pass.V, prefix.values.view());
  const MatrixF dO_padded = padded.join(dO);
  MatrixF dQ = padded.zeros(Q.cols()), dK = padded.zeros(K.cols()),
          dV = padded.zeros(V.cols());
  attention_backward(
      {.Q = Q.view(), .K = K.view(), .V = V.view(), .O = O.view()},
      dO_padded.view(), sequences, config,
      {.dQ = dQ.view(),
       .dK = dK.view(),
       .dV = dV.view(),
       .sinks = gradients.sinks},
      pool, isa);
  const auto part = [&](MatrixF KvPrefix::*of) {
    return own == nullptr ? MatrixView<float>() : (own->*of).view();
  };
  padded.add_apart(dQ, gradients.dQ, {});
  padded.add_apart(dK, gradients.dK, part(&KvPrefix::keys));
  padded.add_apart(dV, gradients.dV, part(&KvPrefix::values));
}

}  // namespace llmpress
