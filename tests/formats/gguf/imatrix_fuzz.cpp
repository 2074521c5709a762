// Any octets as an importance matrix, and as what one in GGUF is made of: names,
// shapes, types and values. What is read is written in both forms and read again.
#include <cstring>

#include "compress/core/error.h"
#include "compress/core/ggml/ggml_type.h"
#include "formats/containers/gguf.h"
#include "formats/gguf/imatrix.h"

namespace {

using namespace llmpress;

void check_reading(std::span<const std::byte> file) {
  const Imatrix imatrix = parse_imatrix(file, "fuzz");
  std::size_t values = 0;
  for (const auto& [name, entry] : imatrix.entries) {
    values += entry.sums.size() + entry.counts.size();
  }
  if (values * sizeof(float) > file.size()) __builtin_trap();
  const std::string gguf = imatrix_octets(imatrix, ImatrixForm::kGguf);
  const Imatrix again = parse_imatrix(std::as_bytes(std::span(gguf)), "again");
  if (again.entries != imatrix.entries) __builtin_trap();
  const std::string legacy = imatrix_octets(imatrix, ImatrixForm::kLegacy);
  // Values times calls may be no finite numbers, which reading refuses.
  (void)parse_imatrix(std::as_bytes(std::span(legacy)), "legacy");
}

// Octets taken one by one; 0 when there are none left.
class Octets {
 public:
  Octets(const unsigned char* data, std::size_t size)
      : data_(data), size_(size) {}
  std::size_t next(std::size_t below) {
    if (size_ == 0) return 0;
    --size_;
    return *data_++ % below;
  }
  std::string rest() const {
    return {reinterpret_cast<const char*>(data_), size_};
  }

 private:
  const unsigned char* data_;
  std::size_t size_;
};

// A GGUF file with tensors of these names and shapes in front of what is left of
// the octets: nothing in its header is damaged, so that what an importance
// matrix asks of a file is reached at once.
std::string made_of(Octets octets) {
  constexpr const char* kNames[] = {"a.in_sum2", "a.counts",  "b.in_sum2",
                                    "b.counts",  ".in_sum2",  ".counts",
                                    "c",         "a.in_sum2."};
  constexpr GgmlType kTypes[] = {GgmlType::kF32, GgmlType::kF32, GgmlType::kF16,
                                 GgmlType::kQ8_0};
  GgufMetadata m;
  m.set("general.type", std::string(octets.next(8) == 0 ? "model" : "imatrix"));
  if (octets.next(4) == 0) m.set("imatrix.chunk_count", std::int32_t{-1});
  std::vector<GgufTensor> tensors;
  const std::size_t count = octets.next(6);
  for (std::size_t t = 0; t < count; ++t) {
    GgufTensor tensor{.name = kNames[octets.next(std::size(kNames))],
                      .type = kTypes[octets.next(std::size(kTypes))],
                      .shape = {octets.next(5), octets.next(70)}};
    if (octets.next(4) == 0) tensor.shape.erase(tensor.shape.begin());
    tensors.push_back(std::move(tensor));
  }
  return gguf_header(m, tensors) + octets.rest();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  try {
    check_reading(std::as_bytes(std::span(data, size)));
  } catch (const Error&) {
  }
  try {
    const std::string file = made_of({data, size});
    check_reading(std::as_bytes(std::span(file)));
  } catch (const Error&) {
  }
  return 0;
}
