// Ctrl-C means the whole process, so the wish to stop is one flag for all of
// it: parallel loops look at it between their chunks, whatever they compute.
#pragma once

namespace llmpress {

// Safe in a signal handler. `wanted` false takes it back.
void request_cancel(bool wanted = true) noexcept;
bool cancel_requested() noexcept;

// Throws Error(kCancelled) once it was requested.
void stop_if_cancelled();

}  // namespace llmpress
