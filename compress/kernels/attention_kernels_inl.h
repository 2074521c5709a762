// The task of attention_kernels.h for one instruction set S.
//
// A lane is a (query, head) pair, called a row here; rows that share a
// key/value head are up to kAttentionRows lanes side by side, so the maxima,
// the exponentials and the sums of the softmax run down the lanes and nothing
// is ever summed across them:
//   scores  S [keys, rows]     = K [keys, d] (broadcast) x Q^T [d, rows]
//   output  O [head_dim, rows] += V^T (broadcast)        x P [keys, rows]
// Tiles of keys begin at multiples of kKeysPerTile, whatever the task, and a
// masked key changes nothing: a row's bits depend on its own query alone.

// Rows of keys or values to ask memory for ahead of their use.
constexpr std::size_t kRowsAhead = 16;

// Finite, so that differences of masked scores are numbers. What a row collects
// before its first key is multiplied by e^-1e30 = 0 at that key.
constexpr float kMasked = -1e30f;

// Scratch of a task, all [.., rows] with the rows padded to whole vectors.
struct AttentionScratch {
  AlignedBuffer buffer{};
  float* q = nullptr;             // [head_dim, rows], scaled
  float* scores = nullptr;        // [kKeysPerTile, rows]
  float* o = nullptr;             // [value_dim, rows]
  float* tile = nullptr;          // [kKeysPerTile, dim] keys or values
  float* max = nullptr;           // [rows]
  float* sum = nullptr;           // [rows]
  float* slope = nullptr;         // [rows] of ALiBi
  float* position = nullptr;      // [rows] of the query, exact below 2^24
  std::int32_t* first = nullptr;  // [rows] the first key in sight
  std::int32_t* last = nullptr;   // [rows]

  void resize(std::size_t head_dim, std::size_t value_dim) {
    constexpr std::size_t kRows = kAttentionRows;
    const std::size_t floats =
        (head_dim + value_dim + kKeysPerTile + 6) * kRows +
        kKeysPerTile * std::max(head_dim, value_dim);
    if (buffer.size() < floats * sizeof(float)) {
      buffer = AlignedBuffer(floats * sizeof(float));
    }
    q = reinterpret_cast<float*>(buffer.data());
    o = q + head_dim * kRows;
    scores = o + value_dim * kRows;
    max = scores + kKeysPerTile * kRows;
    sum = max + kRows;
    slope = sum + kRows;
    position = slope + kRows;
    first = reinterpret_cast<std::int32_t*>(position + kRows);
    last = first + kRows;
    tile = reinterpret_cast<float*>(last + kRows);
  }
};

// Scores of keys [key, key + count) into probabilities; the running maximum and
// sum move on and the output so far shrinks with them.
template <class S>
void soften(const AttentionConfig& config, std::size_t key, std::size_t count,
            bool masked, std::size_t rows, AttentionScratch& s) {
  using F = typename S::F;
  for (std::size_t r = 0; r < rows; r += kLanes) {
    const auto first = S::load_lanes(s.first + r);
    const auto last = S::load_lanes(s.last + r);
    const F before = S::load(s.max + r);
    const F slope = S::load(s.slope + r), position = S::load(s.position + r);
    F max = before;
    for (std::size_t j = 0; j < count; ++j) {
      float* const p = s.scores + j * rows + r;
      F z = S::load(p);
      if (config.softcap != 0) {
        const F cap = S::broadcast(config.softcap);
        z = S::mul(cap, hyperbolic_tangent<S>(S::div(z, cap)));
      }
      if (!config.slopes.empty()) {
        const F distance =
            S::sub(S::broadcast(static_cast<float>(key + j)), position);
        z = S::add(z, S::mul(slope, distance));
      }
      if (masked) {
        const auto index =
            S::broadcast_lanes(static_cast<std::int32_t>(key + j));
        z = S::where_between(index, first, last, z, S::broadcast(kMasked));
      }
      S::store(p, z);
      max = S::max(max, z);
    }
    const F shrink = exponential<S>(S::sub(before, max));
    F sum = S::mul(S::load(s.sum + r), shrink);
    for (std::size_t j = 0; j < count; ++j) {
      float* const p = s.scores + j * rows + r;
      const F e = exponential<S>(S::sub(S::load(p), max));
      S::store(p, e);
      sum = S::add(sum, e);
    }
    S::store(s.max + r, max);
    S::store(s.sum + r, sum);
    for (std::size_t d = 0; d < config.value_dim; ++d) {
      float* const p = s.o + d * rows + r;
      S::store(p, S::mul(S::load(p), shrink));
    }
  }
}

// Rows [key, key + count) of one head as floats [count, head_dim], side by
// side: in the cache, where rows may be a multiple of the page size apart, they
// would push each other out of the first level cache. A new KvType is decoded
// here.
template <class S>
void load_rows(const KvView& view, std::size_t key, std::size_t count,
               std::size_t kv_head, std::size_t head_dim, float* tile) {
  switch (view.type) {
    case KvType::kF32:
      for (std::size_t j = 0; j < count; ++j, tile += head_dim) {
        const std::byte* const row = view.data + (key + j) * view.row_bytes +
                                     kv_head * head_dim * sizeof(float);
        for (std::size_t i = 0; i < head_dim; i += kLanes) {
          S::prefetch(row + kRowsAhead * view.row_bytes + i * sizeof(float));
        }
        std::memcpy(tile, row, head_dim * sizeof(float));
      }
      break;
    case KvType::kInt8:
    case KvType::kFp8:
    case KvType::kInt4:
      assert(false);  // decoded by the cache
      break;
  }
}

template <class S>
void attend(ConstMatrixView Q, const AttentionConfig& config,
            const AttentionTask& task, MatrixView<float> O) {
  static thread_local AttentionScratch s;
  const std::size_t d = config.head_dim, v = config.value_dim;
  const std::size_t used = task.queries * task.heads;
  const std::size_t rows = (used + kLanes - 1) / kLanes * kLanes;
  const AttentionSegment& segment = *task.segment;
  s.resize(d, v);
  std::fill_n(s.q, d * rows, 0.0f);
  std::fill_n(s.o, v * rows, 0.0f);
  std::fill_n(s.max, rows, kMasked);
  std::fill_n(s.sum, rows, 0.0f);
  for (std::size_t r = 0; r < rows; ++r) {
    // Padding rows look where the last real one does.
    const std::size_t query =
        task.first_query + std::min(r, used - 1) / task.heads;
    const std::size_t last = segment.past + query;
    const std::size_t head =
        task.first_head + std::min(r, used - 1) % task.heads;
    s.last[r] = static_cast<std::int32_t>(last);
    s.first[r] = static_cast<std::int32_t>(first_key(config, last));
    s.slope[r] = config.slopes.empty() ? 0.0f : config.slopes[head];
    s.position[r] = static_cast<float>(last);
    if (!config.sinks.empty()) {
      s.max[r] = config.sinks[head];
      s.sum[r] = 1;
    }
    if (r >= used) continue;
    const auto q = Q.row(segment.first_query + query)
                       .subspan((task.first_head + r % task.heads) * d, d);
    for (std::size_t i = 0; i < d; ++i) s.q[i * rows + r] = q[i] * config.scale;
  }
  const auto lowest_last = static_cast<std::size_t>(s.last[0]);
  const auto highest_first = static_cast<std::size_t>(s.first[used - 1]);
  const std::size_t end = static_cast<std::size_t>(s.last[used - 1]) + 1;
  const std::size_t begin =
      static_cast<std::size_t>(s.first[0]) / kKeysPerTile * kKeysPerTile;
  for (std::size_t key = begin; key < end; key += kKeysPerTile) {
    const std::size_t count = std::min(kKeysPerTile, end - key);
    load_rows<S>(segment.keys, key, count, task.kv_head, d, s.tile);
    outer_product<S>({.a = s.tile,
                      .row = d,
                      .step = 1,
                      .depth = d,
                      .b = s.q,
                      .c = s.scores,
                      .rows = rows,
                      .accumulate = false},
                     count);
    const bool masked = key < highest_first || key + count - 1 > lowest_last;
    soften<S>(config, key, count, masked, rows, s);
    load_rows<S>(segment.values, key, count, task.kv_head, v, s.tile);
    outer_product<S>({.a = s.tile,
                      .row = 1,
                      .step = v,
                      .depth = count,
                      .b = s.scores,
                      .c = s.o,
                      .rows = rows,
                      .accumulate = true},
                     v);
  }
  for (std::size_t r = 0; r < used; ++r) {
    const auto o =
        O.row(segment.first_query + task.first_query + r / task.heads)
            .subspan((task.first_head + r % task.heads) * v, v);
    for (std::size_t i = 0; i < v; ++i) o[i] = s.o[i * rows + r] / s.sum[r];
  }
}
