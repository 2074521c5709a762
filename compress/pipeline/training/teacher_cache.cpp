#include "compress/pipeline/training/teacher_cache.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <numeric>
#include <span>
#include <utility>

#include "compress/core/formatted.h"
#include "distill/losses/top_k_selection.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/hdf5_file.h"
#include "formats/containers/hdf5_tables.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "formats/files/atomic_file.h"
#include "formats/files/output_lock.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPartSequences = 64;
constexpr std::size_t kRowsAtATime = 256;
constexpr std::array kTables{"ids", "values", "log_rest"};

std::string part_name(const char* text, const char* table, std::size_t part) {
  std::string digits = std::to_string(part);
  digits.insert(0, digits.size() < 5 ? 5 - digits.size() : 0, '0');
  return formatted("{}.{}.{}", text, table, digits);
}

// The parts of one text.
struct PartList {
  const char* text;  // "text"
  const TrainingData* data;
  std::size_t sequences;

  std::size_t count() const {
    return (sequences + kPartSequences - 1) / kPartSequences;
  }
  std::size_t size_of(std::size_t part) const {
    return std::min(kPartSequences, sequences - part * kPartSequences);
  }
};

std::vector<PartList> lists_of(const TeacherCacheJob& job) {
  std::vector<PartList> lists{{"text", job.text, job.text->sequences()}};
  if (job.held_out != nullptr) {
    lists.push_back({"held_out", job.held_out, job.held_out_sequences});
  }
  return lists;
}

class Writer {
 public:
  Writer(const TeacherCacheJob& job, const TeacherRun& run)
      : job_(job), run_(run) {}

  void write() {
    fs::create_directories(run_.work);
    std::vector<std::pair<const PartList*, std::size_t>> parts;
    const std::vector<PartList> lists = lists_of(job_);
    for (const PartList& list : lists) {
      for (std::size_t p = 0; p < list.count(); ++p)
        parts.push_back({&list, p});
    }
    for (std::size_t i = 0; i < parts.size(); ++i) {
      report(run_.progress, {"teacher", i, parts.size(), ""});
      const auto& [list, p] = parts[i];
      if (!fs::exists(file_of(*list, p))) write_part(*list, p);
    }
    report(run_.progress, {"teacher", parts.size(), parts.size(), ""});
    write_hdf5_tensors(
        job_.path, job_.keys, parts.size() * kTables.size(),
        [&](std::size_t i) {
          const auto& [list, p] = parts[i / kTables.size()];
          const auto reader = open_safetensors(file_of(*list, p));
          const TensorInfo& info = reader->require(
              part_name(list->text, kTables[i % kTables.size()], p));
          const auto bytes = reader->read(info).bytes;
          return NamedTensor{.name = info.name,
                             .dtype = info.dtype,
                             .shape = info.shape,
                             .bytes = {bytes.begin(), bytes.end()}};
        });
  }

 private:
  fs::path file_of(const PartList& list, std::size_t part) const {
    return run_.work / (part_name(list.text, "part", part) + ".safetensors");
  }

  void write_part(const PartList& list, std::size_t part) const {
    const std::size_t length = list.data->sequence_length(), k = job_.top_k;
    const std::size_t count = list.size_of(part), rows = count * length;
    std::vector<std::uint32_t> ids(rows * k);
    std::vector<float> values(rows * k), log_rest(rows);
    for (std::size_t done = 0; done < count; done += run_.batch_size) {
      std::vector<std::size_t> indices(std::min(run_.batch_size, count - done));
      std::iota(indices.begin(), indices.end(), part * kPartSequences + done);
      const TopKRows top = taught(list.data->batch(indices));
      const auto at = static_cast<std::ptrdiff_t>(done * length);
      const auto at_k = at * static_cast<std::ptrdiff_t>(k);
      std::ranges::copy(top.ids.data(), ids.begin() + at_k);
      std::ranges::copy(top.values.data(), values.begin() + at_k);
      std::ranges::copy(top.log_rest, log_rest.begin() + at);
    }
    const std::vector<std::size_t> shape{count, length};
    const std::vector<std::size_t> wide{count, length, k};
    const std::vector<NamedTensor> tensors{
        tensor_of(part_name(list.text, kTables[0], part), DType::kU32, wide,
                  ids),
        tensor_of(part_name(list.text, kTables[1], part), DType::kF32, wide,
                  values),
        tensor_of(part_name(list.text, kTables[2], part), DType::kF32, shape,
                  log_rest)};
    write_file_atomically(file_of(list, part), write_safetensors(tensors, {}));
  }

  // Every scored row of the batch; the others are 0.
  TopKRows taught(const TrainingBatch& batch) const {
    std::vector<Segment> segments;
    for (const std::size_t rows : batch.input.sequences) {
      segments.push_back({.rows = rows});
    }
    const MatrixF hidden =
        run_.teacher->forward(batch.input.tokens, segments, *run_.pool);
    const std::size_t k = job_.top_k;
    TopKRows all{Matrix<std::uint32_t>(hidden.rows(), k),
                 MatrixF(hidden.rows(), k), std::vector<float>(hidden.rows())};
    for (std::size_t first = 0; first < hidden.rows(); first += kRowsAtATime) {
      const std::size_t rows = std::min(kRowsAtATime, hidden.rows() - first);
      const TopKRows top =
          select_top_k(logits(hidden.view().rows_slice(first, rows)).view(), k,
                       job_.temperature, *run_.pool);
      for (std::size_t r = 0; r < rows; ++r) {
        if (batch.targets[first + r] < 0) continue;
        std::ranges::copy(top.ids.row(r), all.ids.row(first + r).begin());
        std::ranges::copy(top.values.row(r), all.values.row(first + r).begin());
        all.log_rest[first + r] = top.log_rest[r];
      }
    }
    return all;
  }

  // Of the tokens that both models have.
  MatrixF logits(ConstMatrixView hidden) const {
    MatrixF Z = run_.teacher->ends().logits(hidden, *run_.pool);
    if (Z.cols() == job_.vocabulary) return Z;
    MatrixF narrow(Z.rows(), job_.vocabulary);
    for (std::size_t r = 0; r < Z.rows(); ++r) {
      std::ranges::copy(Z.row(r).first(job_.vocabulary), narrow.row(r).begin());
    }
    return narrow;
  }

  const TeacherCacheJob& job_;
  const TeacherRun& run_;
};

void check_keys(const TeacherCacheJob& job, const TensorReader& reader) {
  for (const auto& [key, wanted] : job.keys) {
    const auto found = reader.metadata().find(key);
    if (found != reader.metadata().end() && found->second == wanted) continue;
    fail(ErrorCode::kInvalidInput,
         "{}: holds what a teacher said under other conditions: '{}' is '{}', "
         "wanted '{}'; remove it, or give another 'teacher_cache'",
         job.path, key,
         found == reader.metadata().end() ? "missing" : found->second, wanted);
  }
}

// Octets that may be read as numbers of 4.
TensorBytes aligned(TensorBytes bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(bytes.bytes.data());
  if (at % alignof(float) == 0) return bytes;
  auto copy =
      std::make_shared<std::vector<float>>(bytes.bytes.size() / sizeof(float));
  std::memcpy(copy->data(), bytes.bytes.data(), bytes.bytes.size());
  const auto span = std::as_bytes(std::span(std::as_const(*copy)));
  return {span, std::move(copy)};
}

template <class T>
std::span<const T> numbers(const TensorBytes& bytes, std::size_t begin,
                           std::size_t count) {
  return {reinterpret_cast<const T*>(bytes.bytes.data()) + begin, count};
}

}  // namespace

void write_teacher_cache(const TeacherCacheJob& job, const TeacherRun& run) {
  if (job.path.has_parent_path()) {
    fs::create_directories(job.path.parent_path());
  }
  {
    const OutputLock lock(fs::absolute(job.path));
    (void)remove_leftovers(fs::absolute(job.path));
    if (!fs::exists(job.path)) Writer(job, run).write();
  }
  // Last: while it is there, something may lie beside the file.
  fs::remove_all(run.work);
}

TeacherCache::TeacherCache(const TeacherCacheJob& job)
    : path_(job.path),
      top_k_(job.top_k),
      length_(job.text->sequence_length()),
      held_out_(job.held_out) {
  if (!is_hdf5_file(path_)) {
    fail(ErrorCode::kInvalidInput,
         "{}: is no file of what a teacher said; give another 'teacher_cache'",
         path_);
  }
  const auto reader = open_hdf5_tensors(path_);
  check_keys(job, *reader);
  text_parts_ = parts_of(*reader, "text", job.text->sequences());
  if (held_out_ != nullptr) {
    held_out_parts_ = parts_of(*reader, "held_out", job.held_out_sequences);
  }
}

std::vector<TeacherCache::Part> TeacherCache::parts_of(
    const TensorReader& reader, const char* name, std::size_t sequences) const {
  const PartList list{name, nullptr, sequences};
  std::vector<Part> parts(list.count());
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const auto read = [&](const char* table, DType dtype, bool wide) {
      const TensorInfo& info = reader.require(part_name(name, table, p));
      std::vector<std::size_t> shape{list.size_of(p), length_};
      if (wide) shape.push_back(top_k_);
      require_shape(info, shape);
      require_dtype(info, dtype);
      return aligned(reader.read(info));
    };
    parts[p] = {read(kTables[0], DType::kU32, true),
                read(kTables[1], DType::kF32, true),
                read(kTables[2], DType::kF32, false)};
  }
  return parts;
}

StoredRow TeacherCache::row(const TrainingData& data, std::size_t sequence,
                            std::size_t token) const {
  const auto& parts = &data == held_out_ ? held_out_parts_ : text_parts_;
  const Part& part = parts.at(sequence / kPartSequences);
  const std::size_t at = (sequence % kPartSequences) * length_ + token;
  const StoredRow row{numbers<std::uint32_t>(part.ids, at * top_k_, top_k_),
                      numbers<float>(part.values, at * top_k_, top_k_),
                      numbers<float>(part.log_rest, at, 1)[0]};
  const bool sound =
      std::ranges::all_of(row.values,
                          [](float v) { return std::isfinite(v); }) &&
      row.log_rest < std::numeric_limits<float>::infinity();
  if (sound) return row;
  fail(ErrorCode::kCorruptFile,
       "{}: token {} of sequence {} has a value that is not a number", path_,
       token, sequence);
}

}  // namespace llmpress
