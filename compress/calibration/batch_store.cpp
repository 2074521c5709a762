#include "compress/calibration/batch_store.h"

#include <utility>

#include "compress/model/state_bytes.h"

namespace llmpress {

BatchStore::BatchStore(std::filesystem::path scratch)
    : scratch_(std::move(scratch)) {
  if (!scratch_.empty()) file_ = std::make_unique<ScratchFile>(scratch_);
}

BatchStore::BatchStore(const BatchStore& other) : BatchStore(other.scratch_) {
  for (std::size_t b = 0; b < other.size(); ++b) add(other.read(b));
}

BatchStore& BatchStore::operator=(const BatchStore& other) {
  if (this != &other) *this = BatchStore(other);
  return *this;
}

void BatchStore::add(CalibrationBatch batch) {
  if (file_ != nullptr && !batches_.empty()) write_back();
  in_memory_ = batches_.size();
  changed_ = true;
  batches_.push_back(std::move(batch));
  places_.emplace_back();
}

const CalibrationBatch& BatchStore::read(std::size_t b) const {
  if (file_ != nullptr && b != in_memory_) bring_in(b);
  return batches_[b];
}

CalibrationBatch& BatchStore::change(std::size_t b) {
  if (file_ != nullptr && b != in_memory_) bring_in(b);
  changed_ = true;
  return batches_[b];
}

void BatchStore::bring_in(std::size_t b) const {
  write_back();
  batches_[b].state = read_state(*file_, places_[b].offset);
  in_memory_ = b;
}

// The one in memory leaves it.
void BatchStore::write_back() const {
  BlockState& state = batches_[in_memory_].state;
  if (changed_) {
    Place& place = places_[in_memory_];
    const std::size_t size = state_bytes(state);
    if (size > place.capacity) {
      file_->release(place.offset, place.capacity);
      place = {end_, size};
      end_ += size;
    }
    write_state(state, place.offset, *file_);
    changed_ = false;
  }
  state = {};
}

}  // namespace llmpress
