#include "formats/gguf/imatrix.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "compress/core/formatted.h"
#include "compress/core/ggml/ggml_block.h"
#include "formats/containers/gguf.h"
#include "formats/files/mapped_file.h"
#include "formats/gguf/gguf_sink.h"

namespace llmpress {
namespace {

constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";
constexpr std::string_view kOurDataset = "llmpress: ";

// --- the legacy form ---------------------------------------------------------

// Octets from the front on, each piece checked against what is left.
class LegacyReader {
 public:
  LegacyReader(std::span<const std::byte> file, const std::string& where)
      : rest_(file), where_(where) {}

  bool at_end() const { return rest_.empty(); }

  std::size_t count(std::string_view what, std::int32_t least) {
    std::int32_t value = 0;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    if (value < least) {
      fail(ErrorCode::kCorruptFile, "{}: {} is {}, wanted {} at least", where_,
           what, value, least);
    }
    return static_cast<std::size_t>(value);
  }

  std::string text(std::string_view what) {
    const auto octets =
        take(count(formatted("the length of {}", what), 0), what);
    return {reinterpret_cast<const char*>(octets.data()), octets.size()};
  }

  std::vector<float> floats(std::size_t size, const std::string& what) {
    const auto octets = take(size * sizeof(float), what);  // size < 2^31
    std::vector<float> values(size);
    std::memcpy(values.data(), octets.data(), octets.size());
    return values;
  }

 private:
  std::span<const std::byte> take(std::size_t size, std::string_view what) {
    if (size > rest_.size()) {
      fail(ErrorCode::kCorruptFile,
           "{}: an importance matrix (.dat) that ends within {}: {} octets are "
           "left, wanted {}",
           where_, what, rest_.size(), size);
    }
    const auto taken = rest_.first(size);
    rest_ = rest_.subspan(size);
    return taken;
  }

  std::span<const std::byte> rest_;
  const std::string& where_;
};

Imatrix parse_legacy(std::span<const std::byte> file,
                     const std::string& where) {
  LegacyReader in(file, where);
  Imatrix result;
  const std::size_t entries = in.count("the number of entries", 1);
  for (std::size_t e = 0; e < entries; ++e) {
    const std::string name = in.text(formatted("the name of entry {}", e));
    const std::string of = formatted("'{}'", name);
    const auto calls = static_cast<float>(in.count("the calls of " + of, 0));
    const std::size_t values = in.count("the number of values of " + of, 1);
    ImatrixEntry entry{.sums = in.floats(values, "the values of " + of),
                       .counts = {calls}};
    if (!result.entries.emplace(name, std::move(entry)).second) {
      fail(ErrorCode::kInvalidInput, "{}: {} is there twice", where, of);
    }
  }
  if (in.at_end()) return result;
  result.chunks = in.count("the number of calls", 0);
  if (!in.at_end()) {
    result.datasets.push_back(in.text("the name of the text"));
  }
  return result;
}

template <class T>
void put(std::string& out, const T* values, std::size_t count) {
  out.append(reinterpret_cast<const char*>(values), count * sizeof(T));
}

void put_count(std::string& out, std::size_t count) {
  const auto value = static_cast<std::int32_t>(count);
  put(out, &value, 1);
}

void put_text(std::string& out, const std::string& text) {
  put_count(out, text.size());
  out += text;
}

// Every value is a mean times the same number of calls.
std::string legacy_octets(const Imatrix& imatrix) {
  const std::size_t calls = std::max<std::size_t>(imatrix.chunks, 1);
  std::string out;
  put_count(out, imatrix.entries.size());
  for (const auto& [name, entry] : imatrix.entries) {
    put_text(out, name);
    put_count(out, calls);
    put_count(out, entry.sums.size());
    const std::size_t in = entry.sums.size() / entry.counts.size();
    for (std::size_t m = 0; m < entry.counts.size(); ++m) {
      std::vector<float> means = mean_squares(entry, m, in, name);
      for (float& v : means) v *= static_cast<float>(calls);
      put(out, means.data(), means.size());
    }
  }
  put_count(out, calls);
  put_text(out, std::string(kOurDataset) +
                    (imatrix.datasets.empty() ? "" : imatrix.datasets[0]));
  return out;
}

// --- GGUF --------------------------------------------------------------------

std::vector<float> floats_of(const GgufFile& file, const GgufTensor& tensor) {
  if (tensor.type != GgmlType::kF32) {
    fail(ErrorCode::kInvalidInput, "{}: tensor '{}' is of type {}, wanted f32",
         file.file_of(tensor), tensor.name, facts(tensor.type).name);
  }
  std::vector<float> values(tensor.bytes / sizeof(float));
  decode_ggml(tensor.type, file.read(tensor).bytes, values);
  return values;
}

const GgufTensor& partner(const GgufFile& file, const GgufTensor& tensor,
                          const std::string& name) {
  const GgufTensor* const found = file.find(name);
  if (found == nullptr) {
    fail(ErrorCode::kInvalidInput,
         "{}: an importance matrix with '{}' and without '{}'",
         file.file_of(tensor), tensor.name, name);
  }
  return *found;
}

Imatrix imatrix_of(const GgufFile& file) {
  const GgufMetadata& m = file.metadata();
  const auto type = m.text("general.type");
  if (type != "imatrix") {
    fail(ErrorCode::kInvalidInput,
         "{}: no importance matrix: general.type is '{}', wanted 'imatrix'",
         m.origin(), type.value_or(""));
  }
  Imatrix result;
  const auto datasets = m.texts("imatrix.datasets");
  result.datasets.assign(datasets.begin(), datasets.end());
  result.chunks = m.size("imatrix.chunk_count").value_or(0);
  result.chunk_size = m.size("imatrix.chunk_size").value_or(0);
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name.ends_with(kCounts)) {
      const std::string name =
          tensor.name.substr(0, tensor.name.size() - kCounts.size());
      (void)partner(file, tensor, name + std::string(kSums));
      continue;
    }
    if (!tensor.name.ends_with(kSums)) continue;
    const std::string name =
        tensor.name.substr(0, tensor.name.size() - kSums.size());
    result.entries[name] = {
        .sums = floats_of(file, tensor),
        .counts = floats_of(
            file, partner(file, tensor, name + std::string(kCounts)))};
  }
  return result;
}

std::string gguf_octets(const Imatrix& imatrix) {
  GgufMetadata m;
  m.set("general.type", std::string("imatrix"));
  m.set(std::string(kGgufVersionKey), std::string(LLMPRESS_VERSION));
  m.set_array("imatrix.datasets", imatrix.datasets);
  m.set("imatrix.chunk_count", static_cast<std::uint32_t>(imatrix.chunks));
  m.set("imatrix.chunk_size", static_cast<std::uint32_t>(imatrix.chunk_size));
  std::vector<GgufTensor> tensors;
  for (const auto& [name, entry] : imatrix.entries) {
    const std::size_t matrices = entry.counts.size();
    tensors.push_back({.name = name + std::string(kSums),
                       .shape = {matrices, entry.sums.size() / matrices}});
    tensors.push_back(
        {.name = name + std::string(kCounts), .shape = {matrices, 1}});
  }
  std::string out = gguf_header(m, tensors);
  for (const auto& [name, entry] : imatrix.entries) {
    for (const auto* values : {&entry.sums, &entry.counts}) {
      put(out, values->data(), values->size());
      out += gguf_padding(values->size() * sizeof(float), kGgufAlignment);
    }
  }
  return out;
}

// --- both --------------------------------------------------------------------

void check(const Imatrix& imatrix, const std::string& where) {
  if (imatrix.entries.empty()) {
    fail(ErrorCode::kInvalidInput, "{}: an importance matrix without entries",
         where);
  }
  for (const auto& [name, entry] : imatrix.entries) {
    const auto bad = [](float v) { return !(std::isfinite(v) && v >= 0); };
    for (const auto* values : {&entry.sums, &entry.counts}) {
      const auto found = std::ranges::find_if(*values, bad);
      if (found == values->end()) continue;
      fail(ErrorCode::kInvalidInput,
           "{}: '{}': value {} of its {} is {:g}, wanted a finite number of at "
           "least 0",
           where, name, found - values->begin(),
           values == &entry.sums ? "sums" : "counts", *found);
    }
    if (entry.counts.empty() || entry.sums.size() % entry.counts.size() != 0) {
      fail(ErrorCode::kInvalidInput,
           "{}: '{}': {} sums do not fit {} counts of matrices", where, name,
           entry.sums.size(), entry.counts.size());
    }
  }
}

}  // namespace

Imatrix parse_imatrix(std::span<const std::byte> file,
                      const std::string& where) {
  const bool gguf =
      file.size() >= 4 && std::memcmp(file.data(), "GGUF", 4) == 0;
  Imatrix result = gguf ? imatrix_of(GgufFile::read({file, {}}, where))
                        : parse_legacy(file, where);
  check(result, where);
  return result;
}

Imatrix read_imatrix(const std::filesystem::path& path) {
  const TensorBytes file = map_file(path);
  return parse_imatrix(file.bytes, path.string());
}

std::vector<float> mean_squares(const ImatrixEntry& entry, std::size_t index,
                                std::size_t in, std::string_view name) {
  const std::size_t counted = entry.counts.size();
  const bool fits = in != 0 && entry.sums.size() % in == 0 &&
                    index < entry.sums.size() / in &&
                    (counted == 1 || counted == entry.sums.size() / in);
  if (!fits) {
    fail(ErrorCode::kInvalidInput,
         "'{}' of the importance matrix has {} values of {} matrices, which is "
         "not matrix {} of {} inputs",
         name, entry.sums.size(), counted, index, in);
  }
  const float count = entry.counts[counted == 1 ? 0 : index];
  std::vector<float> means(in, 1.0f);
  if (count == 0) return means;
  for (std::size_t i = 0; i < in; ++i) {
    means[i] = entry.sums[index * in + i] / count;
  }
  return means;
}

ImatrixForm imatrix_form_of(const std::filesystem::path& path) {
  if (path.extension() == ".gguf") return ImatrixForm::kGguf;
  if (path.extension() == ".dat") return ImatrixForm::kLegacy;
  fail(ErrorCode::kInvalidArgument,
       "{}: the name of an importance matrix ends in .gguf, or in .dat for the "
       "form of earlier versions of llama.cpp",
       path);
}

std::string imatrix_octets(const Imatrix& imatrix, ImatrixForm form) {
  return form == ImatrixForm::kGguf ? gguf_octets(imatrix)
                                    : legacy_octets(imatrix);
}

bool is_our_imatrix(const std::filesystem::path& path) {
  const TensorBytes file = map_file(path);
  try {
    if (is_gguf_file(path)) {
      const GgufFile gguf = GgufFile::read(file, path.string());
      return gguf.metadata().text("general.type") == "imatrix" &&
             gguf.metadata().find(kGgufVersionKey) != nullptr;
    }
    const Imatrix imatrix = parse_legacy(file.bytes, path.string());
    return !imatrix.datasets.empty() &&
           imatrix.datasets[0].starts_with(kOurDataset);
  } catch (const Error&) {  // damaged, or something else
    return false;
  }
}

}  // namespace llmpress
