#include "compress/model/linear_storage.h"

namespace llmpress {

std::size_t stored_rows(const LinearSpec& spec) {
  return spec.storage->rows == 0 ? spec.out : spec.storage->rows;
}

std::size_t stored_index(const LinearSpec& spec) {
  return spec.storage->index.value_or(0);
}

void place_weight(const LinearSpec& spec, ConstMatrixView W,
                  std::span<float> matrices) {
  const LinearStorage& storage = *spec.storage;
  const std::size_t rows = stored_rows(spec), size = rows * spec.in;
  const auto matrix = matrices.subspan(stored_index(spec) * size, size);
  for (std::size_t o = 0; o < spec.out; ++o) {
    const std::size_t row = storage.first_row + o * storage.row_step;
    for (std::size_t i = 0; i < spec.in; ++i) {
      matrix[storage.transposed ? i * rows + row : row * spec.in + i] = W(o, i);
    }
  }
}

void place_bias(const LinearSpec& spec, std::span<const float> bias,
                std::span<float> biases) {
  const LinearStorage& storage = *spec.storage;
  const std::size_t rows = stored_rows(spec);
  const auto own = biases.subspan(stored_index(spec) * rows, rows);
  for (std::size_t o = 0; o < bias.size(); ++o) {
    own[storage.first_row + o * storage.row_step] = bias[o];
  }
}

}  // namespace llmpress
