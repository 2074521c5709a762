// Reading; writing is in safetensors_writer.cpp.
#include "formats/containers/safetensors.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/file_range.h"
#include "formats/files/foreign_file.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

using json = nlohmann::json;

[[noreturn]] void corrupt(const std::string& where, const std::string& what) {
  fail(ErrorCode::kCorruptFile, "{}: {}", where, what);
}

struct Entry {
  TensorInfo info{};
  std::size_t begin = 0, end = 0;
};

// Receives the header's JSON as events, so that a hostile header costs no more
// memory than its tensors and duplicate keys are seen.
class HeaderEvents : public nlohmann::json_sax<json> {
 public:
  explicit HeaderEvents(const std::string& where) : where_(where) {}

  std::vector<Entry> entries{};
  std::map<std::string, std::string> metadata{};

  bool null() override { return scalar("null"); }
  bool boolean(bool) override { return scalar("a boolean"); }
  bool number_integer(number_integer_t) override {
    return scalar("a negative number");
  }
  bool number_float(number_float_t, const string_t& text) override {
    return scalar("the number " + text);
  }
  bool binary(binary_t&) override { return scalar("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kNumbers) return scalar("a number");
    if (field_ == Field::kShape) {
      entries.back().info.shape.push_back(value);
    } else {
      if (offsets_ == 2) bad("data_offsets has more than 2 numbers");
      (offsets_++ == 0 ? entries.back().begin : entries.back().end) = value;
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      if (!metadata.emplace(key_, value).second) {
        bad("__metadata__: duplicate key '" + key_ + "'");
      }
      return true;
    }
    if (place_ != Place::kTensor || field_ != Field::kDType) {
      return scalar("a string");
    }
    const auto dtype = parse_dtype(value);
    if (!dtype) {
      fail(ErrorCode::kUnsupported, "{}: {}unknown dtype '{}'", where_,
           subject(), value);
    }
    entries.back().info.dtype = *dtype;
    return true;
  }

  bool key(string_t& name) override {
    if (skipping_ != 0) return true;
    if (place_ == Place::kTop) {
      if (!names_.insert(name).second) bad("duplicate key '" + name + "'");
    } else if (place_ == Place::kTensor) {
      field_ = field_named(name);
      if ((seen_ & bit(field_)) != 0) bad("duplicate key '" + name + "'");
      if (field_ != Field::kOther) seen_ |= bit(field_);
      return true;
    }
    key_ = std::move(name);
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop && key_ == "__metadata__") {
      place_ = Place::kMetadata;
    } else if (place_ == Place::kTop) {
      place_ = Place::kTensor;
      entries.emplace_back();
      entries.back().info.name = key_;
      seen_ = 0;
      offsets_ = 0;
    } else {
      start_skipping("an object");
    }
    return true;
  }

  bool end_object() override {
    if (skipping_ != 0) {
      --skipping_;
    } else if (place_ == Place::kTensor) {
      if (seen_ != kAllFields) bad("needs dtype, shape and data_offsets");
      if (offsets_ != 2) bad("data_offsets needs 2 numbers");
      place_ = Place::kTop;
    } else if (place_ == Place::kMetadata) {
      place_ = Place::kTop;
    }
    return true;
  }

  bool start_array(std::size_t) override {
    const bool numbers = skipping_ == 0 && place_ == Place::kTensor &&
                         (field_ == Field::kShape || field_ == Field::kOffsets);
    if (numbers) {
      place_ = Place::kNumbers;
    } else {
      start_skipping("an array");
    }
    return true;
  }

  bool end_array() override {
    if (skipping_ != 0) {
      --skipping_;
    } else {
      place_ = Place::kTensor;
    }
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    corrupt(where_, formatted("header is not JSON at octet {}", position));
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kNumbers };
  enum class Field : unsigned { kDType, kShape, kOffsets, kOther };
  static constexpr unsigned kAllFields = 7;

  static unsigned bit(Field field) {
    return field == Field::kOther ? 0U : 1U << static_cast<unsigned>(field);
  }
  static Field field_named(const std::string& name) {
    if (name == "dtype") return Field::kDType;
    if (name == "shape") return Field::kShape;
    if (name == "data_offsets") return Field::kOffsets;
    return Field::kOther;
  }
  std::string subject() const {
    const bool tensor = place_ == Place::kTensor || place_ == Place::kNumbers;
    return tensor ? "tensor '" + entries.back().info.name + "': " : "";
  }
  [[noreturn]] void bad(const std::string& what) const {
    corrupt(where_, "header: " + subject() + what);
  }
  // Unknown fields of a tensor may hold anything, as in the reference.
  bool ignored() const {
    return skipping_ != 0 ||
           (place_ == Place::kTensor && field_ == Field::kOther);
  }
  bool scalar(const std::string& what) const {
    if (!ignored()) bad("unexpected " + what);
    return true;
  }
  void start_skipping(const char* what) {
    if (!ignored()) bad(formatted("unexpected {}", what));
    ++skipping_;
  }

  const std::string& where_;
  std::unordered_set<std::string> names_{};
  std::string key_{};
  Place place_ = Place::kStart;
  Field field_ = Field::kOther;
  unsigned seen_ = 0, offsets_ = 0;
  std::size_t skipping_ = 0;
};

// Length of the JSON text; checks the frame around it.
std::size_t header_length(std::span<const std::byte> file,
                          const std::string& where) {
  std::uint64_t length = 0;
  if (file.size() < sizeof length) {
    corrupt(where,
            formatted("file of {} octets is too short for a safetensors header",
                      file.size()));
  }
  std::memcpy(&length, file.data(), sizeof length);
  if (length > kMaxHeaderBytes || length > file.size() - sizeof length) {
    const std::string foreign = describe_foreign(file);
    if (!foreign.empty()) corrupt(where, "is " + foreign);
    corrupt(where,
            formatted(
                "header of {} octets exceeds the file of {} or the limit of {}",
                length, file.size(), kMaxHeaderBytes));
  }
  const auto text = file.subspan(sizeof length, length);
  if (text.empty() || text.front() != std::byte{'{'}) {
    corrupt(where, "header does not begin with '{'");
  }
  // The JSON parser takes a NUL for the end of its input.
  if (std::find(text.begin(), text.end(), std::byte{0}) != text.end()) {
    corrupt(where, "header contains a NUL");
  }
  return length;
}

// Entries in file order: each begins where the one before ends, and is as long
// as its shape says.
void check_layout(std::span<const Entry> entries, std::size_t data_bytes,
                  const std::string& where) {
  std::size_t at = 0;
  for (const Entry& e : entries) {
    const std::string subject = where + ": tensor '" + e.info.name + "'";
    const std::string range = formatted("offsets [{}, {})", e.begin, e.end);
    if (e.end < e.begin || e.end > data_bytes) {
      corrupt(subject,
              formatted("{} exceed {} octets of data", range, data_bytes));
    }
    if (e.begin != at) {
      corrupt(subject,
              formatted("{}{} the tensor before, which ends at {}", range,
                        e.begin < at ? " overlap" : " leave a hole after", at));
    }
    const std::size_t bits =
        checked_mul(checked_elements(e.info.shape, subject),
                    facts(e.info.dtype).bits, subject);
    if (bits % 8 != 0) corrupt(subject, "size is not a whole number of octets");
    if (e.end - e.begin != bits / 8) {
      corrupt(subject, formatted("{} hold {} octets, but its shape needs {}",
                                 range, e.end - e.begin, bits / 8));
    }
    at = e.end;
  }
  if (at != data_bytes) {
    corrupt(where, formatted("tensors end at octet {} of {} octets of data", at,
                             data_bytes));
  }
}

class SafetensorsReader : public TensorReader, public PlacedTensors {
 public:
  // `path`: of what is a file.
  SafetensorsReader(TensorBytes file, const std::string& where,
                    std::filesystem::path path = {})
      : file_(std::move(file)),
        path_(std::move(path)),
        header_(parse_safetensors(file_.bytes, where)) {}

  std::span<const TensorInfo> tensors() const override {
    return header_.tensors;
  }
  const std::map<std::string, std::string>& metadata() const override {
    return header_.metadata;
  }
  TensorBytes read(const TensorInfo& info) const override {
    return mapped_part(file_, begin_of(info), require(info.name).bytes);
  }
  FileRange place_of(const TensorInfo& info) const override {
    return {path_, begin_of(info)};
  }

 private:
  std::size_t begin_of(const TensorInfo& info) const {
    const TensorInfo& own = require(info.name);
    return header_
        .begins[static_cast<std::size_t>(&own - header_.tensors.data())];
  }

  TensorBytes file_;
  std::filesystem::path path_;
  SafetensorsHeader header_;
};

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const std::byte> file,
                                    const std::string& where) {
  const std::size_t length = header_length(file, where);
  const auto* text = reinterpret_cast<const char*>(file.data()) + 8;
  HeaderEvents events(where);
  json::sax_parse(text, text + length, &events);

  std::vector<Entry>& entries = events.entries;
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_layout(entries, file.size() - 8 - length, where);
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return a.info.name < b.info.name;
  });

  SafetensorsHeader header;
  header.metadata = std::move(events.metadata);
  const std::string name = std::filesystem::path(where).filename().string();
  for (Entry& e : entries) {
    e.info.bytes = e.end - e.begin;
    e.info.file = name;
    header.tensors.push_back(std::move(e.info));
    header.begins.push_back(8 + length + e.begin);
  }
  return header;
}

FileRange place_of(const TensorReader& reader, const TensorInfo& info) {
  const auto* const placed = dynamic_cast<const PlacedTensors*>(&reader);
  return placed == nullptr ? FileRange{} : placed->place_of(info);
}

std::unique_ptr<TensorReader> read_safetensors(TensorBytes file,
                                               const std::string& where) {
  return std::make_unique<SafetensorsReader>(std::move(file), where);
}

std::unique_ptr<TensorReader> open_safetensors(
    const std::filesystem::path& path) {
  return std::make_unique<SafetensorsReader>(map_file(path), path.string(),
                                             std::filesystem::absolute(path));
}

}  // namespace llmpress
