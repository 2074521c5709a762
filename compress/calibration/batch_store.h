// Calibration batches in memory, or, all but one of them, in a scratch file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <type_traits>
#include <vector>

#include "compress/model/block.h"
#include "formats/files/scratch_file.h"

namespace llmpress {

// A few sequences that run through a block together.
struct CalibrationBatch {
  std::vector<Segment> segments{};
  BlockState state{};
};

class BatchStore {
 public:
  // `scratch`: the folder for the file; empty: all stays in memory.
  explicit BatchStore(std::filesystem::path scratch = {});
  BatchStore(const BatchStore& other);  // into a file of its own
  BatchStore& operator=(const BatchStore& other);
  BatchStore(BatchStore&&) noexcept = default;
  BatchStore& operator=(BatchStore&&) noexcept = default;
  ~BatchStore() = default;

  void add(CalibrationBatch batch);
  std::size_t size() const { return batches_.size(); }
  // Of one batch, without bringing it in.
  const std::vector<Segment>& segments(std::size_t b) const {
    return batches_[b].segments;
  }

  // One batch; in a file, what was returned is good until another batch of this
  // store is asked for. Not for several threads at once. Throws Error(kIo).
  const CalibrationBatch& read(std::size_t b) const;
  CalibrationBatch& change(std::size_t b);

 private:
  // Where a batch's state lies in the file.
  struct Place {
    std::size_t offset = 0, capacity = 0;
  };

  void bring_in(std::size_t b) const;
  void write_back() const;

  std::filesystem::path scratch_;
  std::unique_ptr<ScratchFile> file_;  // null: in memory
  // In a file: with an empty state, all but the one in memory.
  mutable std::vector<CalibrationBatch> batches_;
  mutable std::vector<Place> places_;
  mutable std::size_t end_ = 0;  // of the file
  mutable std::size_t in_memory_ = 0;
  mutable bool changed_ = false;  // the one in memory, since it was written
};

// The batches of a store as a range; see BatchStore::read() for how long an
// element is good.
template <class Store, class Batch>
class BatchRange {
 public:
  explicit BatchRange(Store& store) : store_(&store) {}
  std::size_t size() const { return store_->size(); }
  Batch& operator[](std::size_t b) const {
    if constexpr (std::is_const_v<Batch>) {
      return store_->read(b);
    } else {
      return store_->change(b);
    }
  }
  Batch& front() const { return (*this)[0]; }

  struct Iterator {
    const BatchRange* range;
    std::size_t b;
    Batch& operator*() const { return (*range)[b]; }
    Iterator& operator++() {
      ++b;
      return *this;
    }
    bool operator==(const Iterator& other) const { return b == other.b; }
  };
  Iterator begin() const { return {this, 0}; }
  Iterator end() const { return {this, size()}; }

 private:
  Store* store_;
};

using BatchesToRead = BatchRange<const BatchStore, const CalibrationBatch>;
using BatchesToChange = BatchRange<BatchStore, CalibrationBatch>;

}  // namespace llmpress
