// A LaidOutLinear as octets and back. What stands in the fields is said once,
// for writing and for reading alike.
#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/kernels/laid_out_linear.h"
#include "compress/kernels/panel_product.h"
#include "compress/kernels/sparse_product.h"

namespace llmpress {
namespace {

template <class T>
concept Plain = std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>;

// Rows of fields. `linear` is const when it is written.
template <class Archive, class Quant>
void input_fields(Archive& a, Quant& q) {
  a(q.kind), a(q.bits), a(q.range), a(q.group_size), a(q.symmetric);
  a(q.static_scale), a(q.static_zero), a(q.outlier_threshold);
}

template <class Archive, class Frame>
void frame_fields(Archive& a, Frame& f) {
  a(f.out), a(f.in), a(f.weight_name), a(f.bias);
  input_fields(a, f.input);
  a(f.input_hadamard), a(f.integer_codes), a(f.outlier_columns);
}

template <class Archive, class Panels>
void panel_fields(Archive& a, Panels& w) {
  a(w.out), a(w.in), a(w.depth), a(w.groups), a(w.format), a(w.table);
  a(w.codes), a(w.least), a(w.unit), a(w.map_high), a(w.map_low);
  a(w.gather), a(w.blocks), a(w.int_blocks), a(w.data);
  a(w.scale_type), a(w.zero_type), a(w.scales), a(w.zeros);
  a(w.final_scale), a(w.centre);
}

template <class Archive, class Panels>
void sparse_fields(Archive& a, Panels& w) {
  a(w.out), a(w.in), a(w.steps), a(w.type), a(w.in_pairs), a(w.masks);
  a(w.values), a(w.row_offsets), a(w.groups), a(w.group_of), a(w.scales);
  a(w.zeros);
}

class OctetWriter {
 public:
  template <Plain T>
  void operator()(const T& value) {
    add(&value, sizeof value);
  }
  template <Plain T>
  void operator()(const std::vector<T>& values) {
    (*this)(values.size());
    add(values.data(), values.size() * sizeof(T));
  }
  void operator()(const std::string& text) {
    (*this)(text.size());
    add(text.data(), text.size());
  }
  void operator()(const MatrixF& matrix) {
    (*this)(matrix.rows());
    (*this)(matrix.cols());
    (*this)(matrix.size());
    add(matrix.data().data(), matrix.size() * sizeof(float));
  }
  // The size alone: what it holds comes behind everything else.
  void operator()(const AlignedBuffer& buffer) {
    (*this)(buffer.size());
    if (buffer.size() != 0) buffers_.push_back(buffer.whole_vectors());
  }
  std::vector<std::byte> take() {
    octets_.resize(ceil_div(octets_.size(), kVectorBytes) * kVectorBytes);
    std::size_t total = octets_.size();
    for (const auto& buffer : buffers_) total += buffer.size();
    octets_.reserve(total);
    for (const auto& buffer : buffers_) add(buffer.data(), buffer.size());
    return std::move(octets_);
  }

 private:
  void add(const void* data, std::size_t size) {
    const auto* const octets = static_cast<const std::byte*>(data);
    octets_.insert(octets_.end(), octets, octets + size);
  }

  std::vector<std::byte> octets_{};
  std::vector<std::span<const std::byte>> buffers_{};
};

class OctetReader {
 public:
  OctetReader(std::span<const std::byte> bytes,
              std::shared_ptr<const void> owner, const std::string& where)
      : bytes_(bytes), owner_(std::move(owner)), where_(where) {}

  template <Plain T>
  void operator()(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      std::uint8_t octet = 0;
      (*this)(octet);
      value = octet != 0;
    } else {
      std::memcpy(&value, take(sizeof value).data(), sizeof value);
    }
  }
  template <Plain T>
  void operator()(std::vector<T>& values) {
    values.resize(count_of(sizeof(T)));
    fill(values.data(), values.size());
  }
  void operator()(std::string& text) {
    text.resize(count_of(1));
    fill(text.data(), text.size());
  }
  void operator()(MatrixF& matrix) {
    std::size_t rows = 0, cols = 0;
    (*this)(rows);
    (*this)(cols);
    const std::size_t count = count_of(sizeof(float));
    if (checked_mul(rows, cols, where_) != count) damaged("a matrix");
    matrix = MatrixF(rows, cols);
    fill(matrix.data().data(), count);
  }
  // Where it lies is known once the head is at its end.
  void operator()(AlignedBuffer& buffer) {
    std::size_t size = 0;
    (*this)(size);
    if (size != 0) buffers_.push_back({&buffer, size});
  }
  void finish() {
    skip_to_vector();
    for (const auto& [buffer, size] : buffers_) {
      *buffer = AlignedBuffer::view(take(size), owner_);
      skip_to_vector();
    }
    if (at_ != bytes_.size()) damaged("its length");
  }

 private:
  [[noreturn]] void damaged(const char* what) const {
    fail(ErrorCode::kCorruptFile, "{}: {} is damaged", where_, what);
  }
  std::span<const std::byte> take(std::size_t size) {
    if (size > bytes_.size() - at_) damaged("its length");
    const auto taken = bytes_.subspan(at_, size);
    at_ += size;
    return taken;
  }
  void skip_to_vector() {
    (void)take(ceil_div(at_, kVectorBytes) * kVectorBytes - at_);
  }
  std::size_t count_of(std::size_t element) {
    std::size_t count = 0;
    (*this)(count);
    if (count > (bytes_.size() - at_) / element) damaged("its length");
    return count;
  }
  template <Plain T>
  void fill(T* to, std::size_t count) {
    const auto taken = take(count * sizeof(T));
    if (count != 0) std::memcpy(to, taken.data(), taken.size());
  }

  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
  const std::string& where_;
  std::size_t at_ = 0;
  std::vector<std::pair<AlignedBuffer*, std::size_t>> buffers_{};
};

// Everything that a kernel takes for granted when it computes an address.
class LayoutCheck {
 public:
  explicit LayoutCheck(const std::string& where) : where_(where) {}

  void operator()(const LaidOutLinear& linear) const {
    const LinearFrame& frame = linear.frame;
    want(frame.out > 0 && frame.in > 0 && frame.out < kMost && frame.in < kMost,
         "the shape");
    enumeration(frame.input.kind, ActivationQuant::Kind::kFp8);
    enumeration(frame.input.range, ActivationQuant::Range::kStatic);
    ascending(frame.outlier_columns, frame.in);
    if (const auto* panels = std::get_if<PanelWeight>(&linear.weight)) {
      check_panels(*panels, frame);
      check_products(*panels, linear);
    } else {
      check_sparse(std::get<SparsePanels>(linear.weight), frame);
      want(!frame.integer_codes && frame.outlier_columns.empty() &&
               linear.outlier_rows.empty() && linear.code_sums.empty(),
           "the frame");
    }
  }

 private:
  static constexpr std::size_t kMost = std::size_t{1} << 31;

  void want(bool right, const char* what) const {
    if (right) return;
    fail(ErrorCode::kCorruptFile, "{}: {} is damaged", where_, what);
  }
  template <class Enum>
  void enumeration(Enum value, Enum last) const {
    want(value >= Enum{} && value <= last, "a kind");
  }
  void ascending(std::span<const std::uint32_t> columns, std::size_t in) const {
    want(std::ranges::adjacent_find(columns, std::greater_equal<>{}) ==
                 columns.end() &&
             (columns.empty() || columns.back() < in),
         "the outlier columns");
  }
  // The blocks follow one another over the whole depth.
  void check_blocks(const std::vector<PanelBlock>& blocks, const PanelWeight& w,
                    std::size_t longest) const {
    const std::size_t step = facts(w.format).step_inputs;
    std::size_t at = 0;
    for (const PanelBlock& block : blocks) {
      want(block.begin == at && block.end > block.begin &&
               block.end - block.begin <= longest && block.end % step == 0 &&
               block.group < w.groups,
           "a block");
      at = block.end;
    }
    want(at == w.depth, "the blocks");
  }
  void check_panels(const PanelWeight& w, const LinearFrame& frame) const {
    want(w.out == frame.out && w.in == frame.in, "the shape");
    enumeration(w.format, PanelFormat::kCrumb);
    enumeration(w.codes, PanelCodes::kMappedPair);
    enumeration(w.scale_type, PanelScaleType::kE4M3);
    enumeration(w.zero_type, PanelZeroType::kF32);
    const PanelFormatFacts f = facts(w.format);
    want(w.depth > 0 && w.depth < kMost && w.depth % f.step_inputs == 0,
         "the depth");
    want(w.groups > 0 && w.groups <= w.depth, "the groups");
    if (w.gather.empty()) {
      want(w.depth == w.in, "the depth");
    } else {
      want(w.gather.size() == w.depth, "the order of inputs");
      want(std::ranges::all_of(
               w.gather,
               [&](std::uint32_t i) { return i < w.in || i == kPadding; }),
           "the order of inputs");
    }
    check_blocks(w.blocks, w, kBlockDepth);
    check_blocks(w.int_blocks, w, kIntBlockDepth);
    const std::size_t rows = w.panels() * kPanelRows;
    want(
        w.data.size() ==
            checked_mul(rows, f.lane_bytes * (w.depth / f.step_inputs), where_),
        "the weight");
    const std::size_t slots = checked_mul(rows, w.groups, where_);
    want(w.scales.size() == slots * element_bytes(w.scale_type), "the scales");
    want(w.zeros.size() == slots * element_bytes(w.zero_type), "the zeros");
  }
  void check_products(const PanelWeight& w, const LaidOutLinear& linear) const {
    const LinearFrame& frame = linear.frame;
    const bool coded =
        w.format == PanelFormat::kByte || w.format == PanelFormat::kNibble;
    const bool scaled = w.scale_type == PanelScaleType::kF32 ||
                        w.scale_type == PanelScaleType::kF16 ||
                        w.scale_type == PanelScaleType::kBF16;
    want(!frame.integer_codes || (coded && scaled), "the kind of codes");
    want(w.codes == PanelCodes::kNone || coded ||
             w.format == PanelFormat::kCrumb,
         "the kind of codes");
    const std::size_t outliers = frame.outlier_columns.size();
    want(linear.outlier_rows.rows() == outliers &&
             (outliers == 0 || linear.outlier_rows.cols() == w.out),
         "the outlier rows");
    const bool summed = frame.multiplies_integers() && !frame.input.symmetric;
    want(linear.code_sums.size() ==
             (summed ? w.panels() * w.int_blocks.size() * kPanelRows : 0),
         "the sums of codes");
  }
  void check_sparse(const SparsePanels& w, const LinearFrame& frame) const {
    constexpr std::size_t kLanes = 16;
    want(w.out == frame.out && w.in == frame.in &&
             w.steps == ceil_div(w.in, kLanes),
         "the shape");
    enumeration(w.type, SparseValues::kCodes);
    const std::size_t value = bytes_of_value(w.type);
    if (w.in_pairs) {
      const std::size_t vectors = checked_mul(w.pairs(), w.steps, where_);
      want(w.masks.size() == vectors * sizeof(std::uint32_t), "the columns");
      want(w.values.size() == vectors * kLanes * value, "the values");
    } else {
      check_masks(w, value);
    }
    const std::size_t slots =
        w.type == SparseValues::kCodes
            ? checked_mul(w.in_pairs ? w.pairs() * 4 : w.out, w.groups, where_)
            : 0;
    want(w.scales.size() == slots && w.zeros.size() == slots, "the scales");
    if (w.type != SparseValues::kCodes) return;
    want(w.group_of.size() == w.steps &&
             std::ranges::all_of(w.group_of,
                                 [&](std::uint32_t g) { return g < w.groups; }),
         "the groups");
  }
  // Each row has as many numbers as its masks say, and a load after the last
  // one stays inside.
  void check_masks(const SparsePanels& w, std::size_t value) const {
    want(w.masks.size() ==
             checked_mul(w.out, w.steps, where_) * sizeof(std::uint16_t),
         "the masks");
    want(w.row_offsets.size() == w.out + 1 && w.row_offsets[0] == 0,
         "the rows");
    for (std::size_t o = 0; o < w.out; ++o) {
      std::size_t kept = 0;
      for (std::size_t s = 0; s < w.steps; ++s) {
        std::uint16_t mask = 0;
        std::memcpy(&mask, w.masks.data() + (o * w.steps + s) * sizeof mask,
                    sizeof mask);
        kept += static_cast<std::size_t>(std::popcount(mask));
      }
      want(w.row_offsets[o + 1] == w.row_offsets[o] + kept, "the rows");
    }
    want(w.values.size() >= checked_add(w.row_offsets.back() * value,
                                        kSparseSlackBytes, where_),
         "the values");
  }

  const std::string& where_;
};

// `weight` as one of the two.
enum class LayoutKind : std::uint32_t { kPanels, kSparse };

template <class Archive, class Linear>
void linear_fields(Archive& a, Linear& linear) {
  frame_fields(a, linear.frame);
  a(linear.outlier_rows), a(linear.code_sums);
}

}  // namespace

std::vector<std::byte> to_octets(const LaidOutLinear& linear) {
  OctetWriter writer;
  linear_fields(writer, linear);
  if (const auto* panels = std::get_if<PanelWeight>(&linear.weight)) {
    writer(LayoutKind::kPanels);
    panel_fields(writer, *panels);
  } else {
    writer(LayoutKind::kSparse);
    sparse_fields(writer, std::get<SparsePanels>(linear.weight));
  }
  return writer.take();
}

LaidOutLinear from_octets(std::span<const std::byte> octets,
                          std::shared_ptr<const void> owner,
                          const std::string& where) {
  LaidOutLinear linear;
  OctetReader reader(octets, std::move(owner), where);
  linear_fields(reader, linear);
  LayoutKind kind = LayoutKind::kPanels;
  reader(kind);
  if (kind == LayoutKind::kSparse) {
    sparse_fields(reader, linear.weight.emplace<SparsePanels>());
  } else if (kind == LayoutKind::kPanels) {
    panel_fields(reader, std::get<PanelWeight>(linear.weight));
  } else {
    fail(ErrorCode::kCorruptFile, "{}: the kind of layout is damaged", where);
  }
  reader.finish();
  LayoutCheck{where}(linear);
  try {
    check_frame(linear.frame);
  } catch (const Error& error) {
    fail(ErrorCode::kCorruptFile, "{}: {}", where, error.what());
  }
  return linear;
}

}  // namespace llmpress
