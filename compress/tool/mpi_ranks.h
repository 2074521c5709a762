// The ranks of this process where a launcher (mpirun, srun) started several,
// over MPI. The only place that knows MPI, and only in a program built with
// it (CMake option LLMPRESS_MPI).
#pragma once

#include <cstddef>
#include <memory>

#include "compress/core/ranks.h"

namespace llmpress {

class MpiRanks {
 public:
  // Without a launcher: one process, and MPI is not started. Throws
  // Error(kInvalidArgument) where a launcher started several of a program that
  // was built without MPI.
  MpiRanks();
  MpiRanks(const MpiRanks&) = delete;
  MpiRanks& operator=(const MpiRanks&) = delete;

  const Ranks& ranks() const { return ranks_; }
  // Ranks that have the same processors as this one: threads are shared out
  // among them. A launcher that binds ranks to processors gives each its own.
  std::size_t sharing_processors() const { return sharing_; }

  // Returns when all ranks have come here. Nothing may be sent after it.
  void end();
  // Ends every rank at once where there are several; otherwise returns.
  void abort(int exit_code) const;

 private:
  Ranks ranks_{};
  std::size_t sharing_ = 1;
  [[maybe_unused]] bool running_ = false;
};

}  // namespace llmpress
