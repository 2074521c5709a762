#include "compress/core/cancel.h"

#include <atomic>

#include "compress/core/error.h"

namespace llmpress {
namespace {

std::atomic<bool> requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);

}  // namespace

void request_cancel(bool wanted) noexcept { requested.store(wanted); }
bool cancel_requested() noexcept { return requested.load(); }

void stop_if_cancelled() {
  if (!cancel_requested()) return;
  throw Error(ErrorCode::kCancelled,
              "interrupted; run the same command again to go on");
}

}  // namespace llmpress
