// What a teacher says of a packed text, stored: of every token the k largest
// logits, their tokens, and what the others weigh. One HDF5 file
// (formats/containers/hdf5_file.h), in parts of up to 64 sequences:
//
//   /                       attributes: of whom and of what it is (kKeys)
//   text.ids.00000          U32 [sequences, length, k]
//   text.values.00000       F32 [sequences, length, k]
//   text.log_rest.00000     F32 [sequences, length]
//   held_out.ids.00000 ...  the sequences that evaluations see
//
// Rows that nothing follows are 0. Size: 8 k + 4 bytes a token, mapped, so that
// memory holds what is looked at.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/model/decoder.h"
#include "distill/teacher.h"
#include "distill/training_data.h"
#include "formats/containers/tensor_io.h"

namespace llmpress {

struct TeacherCacheJob {
  std::filesystem::path path{};
  // Of whom and of what: hashes and numbers by their names in the file. Whatever
  // differs from it is refused.
  std::map<std::string, std::string> keys{};
  const TrainingData* text = nullptr;
  const TrainingData* held_out = nullptr;  // null: none
  std::size_t held_out_sequences = 0;      // the first so many
  std::size_t top_k = 0, vocabulary = 0;
  float temperature = 1;
};

struct TeacherRun {
  const Decoder* teacher = nullptr;
  std::size_t batch_size = 1;    // sequences at a time
  std::filesystem::path work{};  // folder of the parts that are done
  Progress progress{};
  ThreadPool* pool = nullptr;
};

// Runs the teacher over both and writes the file, whole or not at all; one that
// is there stays. Goes on from the parts of an earlier call that was cut short,
// and takes away what that one left beside the file.
void write_teacher_cache(const TeacherCacheJob& job, const TeacherRun& run);

class TeacherCache {
 public:
  // Throws Error(kInvalidInput) for a file of another teacher, tokenizer, text
  // or packing, kCorruptFile for one that is cut off or of another shape.
  explicit TeacherCache(const TeacherCacheJob& job);

  // For StoredTeacher. Throws Error(kCorruptFile) for values that are not
  // numbers.
  StoredRow row(const TrainingData& data, std::size_t sequence,
                std::size_t token) const;

 private:
  struct Part {
    TensorBytes ids{}, values{}, log_rest{};
  };
  std::vector<Part> parts_of(const TensorReader& reader, const char* name,
                             std::size_t sequences) const;

  std::filesystem::path path_;
  std::size_t top_k_, length_;
  const TrainingData* held_out_;
  std::vector<Part> text_parts_{}, held_out_parts_{};
};

}  // namespace llmpress
