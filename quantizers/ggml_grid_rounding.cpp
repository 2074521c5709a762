#include "quantizers/ggml_grid_rounding.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "compress/core/float_formats.h"
#include "compress/core/vector_clones.h"

namespace llmpress {
namespace {

using Values = std::span<const float>;

constexpr std::size_t kSet = 8;     // weights whose signs lie together
constexpr std::size_t kLanes = 16;  // sums that run side by side
constexpr float kWorst = std::numeric_limits<float>::infinity();

// How the two halves of the codes may be chosen.
enum class Choice {
  kSigns,      // freely, weight by weight
  kEvenSigns,  // an even number of minuses in a set
  kShiftOfSet,
  kShiftOfSubBlock
};

Choice choice_of(GgmlType type) {
  if (type == GgmlType::kIq1S) return Choice::kShiftOfSubBlock;
  if (type == GgmlType::kIq1M) return Choice::kShiftOfSet;
  const bool free = type == GgmlType::kIq2S || type == GgmlType::kIq3S;
  return free ? Choice::kSigns : Choice::kEvenSigns;
}

// A grid with its values, neighbour by neighbour, so that points are summed
// side by side.
struct GridValues {
  const GgmlGrid* grid = nullptr;
  const GgmlLayout* layout = nullptr;
  Choice choice = Choice::kSigns;
  std::vector<float> values[2]{};  // [group, entries] of each half

  explicit GridValues(GgmlType type)
      : grid(grid_of(type)),
        layout(&llmpress::layout(type)),
        choice(choice_of(type)) {
    const bool shifted =
        choice == Choice::kShiftOfSet || choice == Choice::kShiftOfSubBlock;
    for (int half = 0; half < 2; ++half) {
      values[half].resize(grid->group * grid->entries);
      for (std::size_t e = 0; e < grid->entries; ++e) {
        for (std::size_t k = 0; k < grid->group; ++k) {
          const int code =
              grid->point(e)[k] + (shifted ? half : 0) * grid->levels;
          values[half][k * grid->entries + e] = static_cast<float>(
              value_of(*layout, static_cast<std::uint8_t>(code)));
        }
      }
    }
  }
  bool signs() const {
    return choice == Choice::kSigns || choice == Choice::kEvenSigns;
  }
};

const GridValues& values_of(GgmlType type) {
  static const GridValues all[]{
      GridValues(GgmlType::kIq1S),   GridValues(GgmlType::kIq1M),
      GridValues(GgmlType::kIq2Xxs), GridValues(GgmlType::kIq2Xs),
      GridValues(GgmlType::kIq2S),   GridValues(GgmlType::kIq3Xxs),
      GridValues(GgmlType::kIq3S)};
  return *std::ranges::find_if(
      all, [&](const GridValues& row) { return row.layout->type == type; });
}

// --- sums over the points ----------------------------------------------------

// a[e] = sum of wx[k] v[k, e], b[e] = sum of w[k] v[k, e]^2.
LLMPRESS_VECTOR_CLONES
void make_products(const float* values, std::size_t entries, std::size_t group,
                   const float* wx, const float* w, float* a, float* b) {
  for (std::size_t e = 0; e < entries; ++e) a[e] = b[e] = 0;
  for (std::size_t k = 0; k < group; ++k) {
    const float* const v = values + k * entries;
    for (std::size_t e = 0; e < entries; ++e) {
      a[e] += wx[k] * v[e];
      b[e] += w[k] * v[e] * v[e];
    }
  }
}

// The same with the sign turned that costs least: a[e] -= 2 min wx[k] v[k, e].
LLMPRESS_VECTOR_CLONES
void turn_cheapest_sign(const float* values, std::size_t entries,
                        std::size_t group, const float* wx, const float* from,
                        float* a) {
  for (std::size_t e = 0; e < entries; ++e) {
    float least = wx[0] * values[e];
    for (std::size_t k = 1; k < group; ++k) {
      const float own = wx[k] * values[k * entries + e];
      least = own < least ? own : least;
    }
    a[e] = from[e] - 2 * least;
  }
}

// The least s (s b[e] - 2 a[e]).
LLMPRESS_VECTOR_CLONES
float least_cost(const float* a, const float* b, std::size_t entries, float s) {
  float best[kLanes];
  for (std::size_t l = 0; l < kLanes; ++l) best[l] = kWorst;
  for (std::size_t e = 0; e < entries; e += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const float cost = s * (s * b[e + l] - 2 * a[e + l]);
      best[l] = cost < best[l] ? cost : best[l];
    }
  }
  return *std::min_element(best, best + kLanes);
}

// The first point of that cost.
std::size_t point_of_cost(const float* a, const float* b, std::size_t entries,
                          float s, float cost) {
  for (std::size_t e = 0; e < entries; ++e) {
    if (s * (s * b[e] - 2 * a[e]) == cost) return e;
  }
  return 0;  // costs that are not finite
}

// A group of weights and what all points make of it. Version 1 is the other
// half of the codes, or the signs with one of them turned.
struct Group {
  std::vector<float> a[2]{}, b[2]{};  // [entries]
  std::array<float, kSet> wx{};
  unsigned minus = 0;  // a bit for each weight below 0
};

struct Pick {
  std::size_t entry = 0;
  int version = 0;
};

// Some whole sets of weights that share a scale.
class GridProblem {
 public:
  GridProblem(const GridValues& grid, std::size_t size)
      : grid_(grid), groups_(size / grid.grid->group) {
    for (Group& g : groups_) {
      for (int v = 0; v < 2; ++v) {
        g.a[v].resize(grid.grid->entries);
        g.b[v].resize(grid.grid->entries);
      }
    }
    picks_.resize(groups_.size());
  }

  void set(Values x, Values weights) {
    const std::size_t size = grid_.grid->group;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      set(groups_[g], x.subspan(g * size, size),
          weights.subspan(g * size, size));
    }
  }

  // Which half all weights are of.
  void fix_half(GridHalf half) { half_ = half; }

  // The least cost at scale s, relative to that of zeros; picks() and
  // best_scale() are those of it.
  float round(float s) {
    float cost = 0;
    if (grid_.choice == Choice::kShiftOfSubBlock) {
      cost = round_in_one_half(s);
    } else {
      const std::size_t of_set = kSet / grid_.grid->group;
      for (std::size_t g = 0; g < groups_.size(); g += of_set) {
        cost += round_set(g, of_set, s);
      }
    }
    a_ = b_ = 0;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const auto [entry, version] = picks_[g];
      a_ += groups_[g].a[version][entry];
      b_ += groups_[g].b[version][entry];
    }
    return cost;
  }

  // Of what round() picked: the scale that fits it best, the sums for it.
  float best_scale() const { return b_ > 0 ? a_ / b_ : 0.0f; }
  float a() const { return a_; }
  float b() const { return b_; }

  void codes(std::span<std::uint8_t> codes) const {
    const std::size_t size = grid_.grid->group;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      code(groups_[g], picks_[g], codes.subspan(g * size, size));
    }
  }

 private:
  void set(Group& g, Values x, Values weights) const {
    const GgmlGrid& grid = *grid_.grid;
    g.minus = 0;
    std::array<float, kSet> wx{};
    for (std::size_t k = 0; k < grid.group; ++k) {
      const bool minus = grid_.signs() && x[k] < 0;
      g.minus |= static_cast<unsigned>(minus) << k;
      wx[k] = weights[k] * (minus ? -x[k] : x[k]);
    }
    g.wx = wx;
    const auto products = [&](int half) {
      make_products(grid_.values[half].data(), grid.entries, grid.group,
                    wx.data(), weights.data(), g.a[half].data(),
                    g.b[half].data());
    };
    products(0);
    if (grid_.choice == Choice::kEvenSigns) {
      turn_cheapest_sign(grid_.values[0].data(), grid.entries, grid.group,
                         wx.data(), g.a[0].data(), g.a[1].data());
      g.b[1] = g.b[0];
    } else if (!grid_.signs()) {
      products(1);
    }
  }

  float cost(std::size_t g, int version, float s) const {
    return least_cost(groups_[g].a[version].data(),
                      groups_[g].b[version].data(), grid_.grid->entries, s);
  }

  float pick(std::size_t g, int version, float s, float cost) {
    picks_[g] = {point_of_cost(groups_[g].a[version].data(),
                               groups_[g].b[version].data(),
                               grid_.grid->entries, s, cost),
                 version};
    return cost;
  }
  float pick(std::size_t g, int version, float s) {
    return pick(g, version, s, cost(g, version, s));
  }

  float round_in_one_half(float s) {
    float lower = 0, upper = 0;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      lower += cost(g, 0, s);
      upper += cost(g, 1, s);
    }
    const bool up =
        half_ == GridHalf::kAny ? upper < lower : half_ == GridHalf::kUpper;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      (void)pick(g, up ? 1 : 0, s);
    }
    return up ? upper : lower;
  }

  // Groups [begin, begin + count).
  float round_set(std::size_t begin, std::size_t count, float s) {
    unsigned minuses = 0;
    for (std::size_t g = begin; g < begin + count; ++g) {
      minuses += static_cast<unsigned>(std::popcount(groups_[g].minus));
    }
    const bool odd = grid_.choice == Choice::kEvenSigns && minuses % 2 != 0;
    const bool either = grid_.choice == Choice::kShiftOfSet;
    float sum = 0, least_gain = kWorst;
    std::size_t turned = begin;
    for (std::size_t g = begin; g < begin + count; ++g) {
      const float own = pick(g, 0, s);
      sum += own;
      if (!odd && !either) continue;
      const float other = cost(g, 1, s);
      if (other - own < least_gain) {
        least_gain = other - own;
        turned = g;
      }
    }
    if (odd || (either && least_gain < 0)) {
      pick(turned, 1, s);
      sum += least_gain;
    }
    return sum;
  }

  void code(const Group& g, Pick pick, std::span<std::uint8_t> codes) const {
    const GgmlGrid& grid = *grid_.grid;
    const auto point = grid.point(pick.entry);
    unsigned upper = g.minus;
    if (!grid_.signs()) upper = pick.version == 1 ? ~0u : 0u;
    if (grid_.signs() && pick.version == 1) {
      std::size_t turned = 0;
      float least = kWorst;
      for (std::size_t k = 0; k < grid.group; ++k) {
        const float own =
            g.wx[k] * grid_.values[0][k * grid.entries + pick.entry];
        if (own < least) {
          least = own;
          turned = k;
        }
      }
      upper ^= 1u << turned;
    }
    for (std::size_t k = 0; k < grid.group; ++k) {
      codes[k] =
          static_cast<std::uint8_t>(point[k] + (upper >> k & 1u) * grid.levels);
    }
  }

  const GridValues& grid_;
  std::vector<Group> groups_;
  std::vector<Pick> picks_{};
  GridHalf half_ = GridHalf::kAny;
  float a_ = 0, b_ = 0;
};

// --- scales ------------------------------------------------------------------

// The magnitudes of a type's values, rising.
std::vector<float> magnitudes_of(const GgmlLayout& l) {
  std::vector<float> all;
  for (int code = 0; code < l.levels; ++code) {
    all.push_back(std::fabs(
        static_cast<float>(value_of(l, static_cast<std::uint8_t>(code)))));
  }
  std::ranges::sort(all);
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

// A sub-block's best scale by itself and the weight of its square.
struct FreeScale {
  float s = 0, b = 0;
};

// Scales around the one that covers the range, and those by which the range is
// the smallest values, each fitted again to what it picks.
FreeScale best_free_scale(GridProblem& problem, Values x,
                          std::span<const float> magnitudes) {
  const float largest = magnitudes.back();
  float magnitude = 0;
  for (const float v : x) magnitude = std::max(magnitude, std::fabs(v));
  FreeScale best;
  float least = 0;
  if (!(magnitude > 0)) return best;
  for (const float part : {0.55f, 0.65f, 0.75f, 0.85f, 0.95f, 1.05f, 1.2f,
                           largest / magnitudes[1], largest / magnitudes[0]}) {
    float s = part * magnitude / largest;
    for (int round = 0; round < 2; ++round) {
      (void)problem.round(s);
      s = problem.best_scale();
      const float gain = -s * problem.a();
      if (gain < least) {
        least = gain;
        best = {s, problem.b()};
      }
    }
  }
  return best;
}

int scale_code(const GgmlLayout& l, float d, float s) {
  if (!(d > 0)) return 0;
  const float code = std::nearbyint((s / (d * l.odd_unit) - 1) / 2);
  return static_cast<int>(
      std::clamp(code, 0.0f, static_cast<float>(l.most_scale)));
}

float scale_at(const GgmlLayout& l, float d, int code) {
  return d * static_cast<float>(2 * code + 1) * l.odd_unit;
}

// The d, an f16, whose odd multiples are nearest to the scales.
float choose_d(const GgmlLayout& l, std::span<const FreeScale> scales) {
  float most = 0;
  for (const FreeScale& f : scales) most = std::max(most, f.s);
  if (!(most > 0)) return 0;
  const float covering =
      most / (static_cast<float>(2 * l.most_scale + 1) * l.odd_unit);
  float best = 0, least = kWorst;
  for (int step = -12; step <= 24; ++step) {
    const float d = f16_to_float(
        f16_from_float(covering * (1 + 0.025f * static_cast<float>(step))));
    if (!(d > 0) || !std::isfinite(d)) continue;
    float error = 0;
    for (const FreeScale& f : scales) {
      const float off = scale_at(l, d, scale_code(l, d, f.s)) - f.s;
      error += f.b * off * off;
    }
    if (error < least) {
      least = error;
      best = d;
    }
  }
  return best;
}

// Codes of one sub-block at the scale of least cost near its own.
void round_sub_block(const GgmlLayout& l, GridProblem& problem, float wanted,
                     std::size_t j, GgmlBlock& block, double& a, double& b) {
  const int near = scale_code(l, block.d, wanted);
  int best = near;
  float least = kWorst;
  for (int code = std::max(near - 1, 0); code <= near + 1; ++code) {
    if (code > l.most_scale) break;
    const float cost = problem.round(scale_at(l, block.d, code));
    if (cost < least) {
      least = cost;
      best = code;
    }
  }
  (void)problem.round(scale_at(l, block.d, best));
  block.scale_codes[j] = static_cast<std::int16_t>(best);
  problem.codes(std::span(block.codes).subspan(j * l.step, l.step));
  const double odd = static_cast<double>(2 * best + 1) * double{l.odd_unit};
  a += odd * double{problem.a()};
  b += odd * odd * double{problem.b()};
}

}  // namespace

GgmlBlock fit_grid_block(GgmlType type, std::span<const float> x,
                         std::span<const float> weights) {
  const GridValues& grid = values_of(type);
  const GgmlLayout& l = *grid.layout;
  const std::size_t count = kGgmlMostElements / l.step;
  const std::vector<float> magnitudes = magnitudes_of(l);
  GridProblem problem(grid, l.step);
  std::array<FreeScale, kGgmlMostSubBlocks> scales{};
  for (std::size_t j = 0; j < count; ++j) {
    const Values own = x.subspan(j * l.step, l.step);
    problem.set(own, weights.subspan(j * l.step, l.step));
    scales[j] = best_free_scale(problem, own, magnitudes);
  }
  GgmlBlock block;
  block.d = choose_d(l, std::span(scales).first(count));
  double a = 0, b = 0;
  for (std::size_t j = 0; j < count; ++j) {
    problem.set(x.subspan(j * l.step, l.step),
                weights.subspan(j * l.step, l.step));
    round_sub_block(l, problem, scales[j].s, j, block, a, b);
  }
  // The d that fits all that was picked.
  const float d = b > 0 ? static_cast<float>(a / b) : 0.0f;
  const float stored = f16_to_float(f16_from_float(d));
  if (stored > 0 && std::isfinite(stored)) block.d = stored;
  return block;
}

void round_to_grid(GgmlType type, float s, std::span<const float> x,
                   std::span<const float> weights, GridHalf half,
                   std::span<std::uint8_t> codes) {
  GridProblem problem(values_of(type), kSet);
  problem.fix_half(half);
  problem.set(x, weights);
  (void)problem.round(s);
  problem.codes(codes);
}

}  // namespace llmpress
