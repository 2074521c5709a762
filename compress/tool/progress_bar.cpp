#include "compress/tool/progress_bar.h"

#include <cmath>
#include <cstdio>

#include "compress/core/printable.h"

namespace llmpress {
namespace {

constexpr std::size_t kWidth = 28;  // cells of the bar
constexpr double kRedrawSeconds = 0.1, kLineSeconds = 10;

std::string bar(std::size_t done, std::size_t total) {
  const std::size_t filled = total == 0 ? 0 : kWidth * done / total;
  return std::string(filled, '#') + std::string(kWidth - filled, '.');
}

}  // namespace

std::string format_eta(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e7) return "--:--";
  const auto total = static_cast<unsigned long>(std::lround(seconds));
  char text[32];
  if (total >= 3600) {
    std::snprintf(text, sizeof(text), "%lu:%02lu:%02lu", total / 3600,
                  total / 60 % 60, total % 60);
  } else {
    std::snprintf(text, sizeof(text), "%lu:%02lu", total / 60, total % 60);
  }
  return text;
}

ProgressBar::ProgressBar(bool terminal) : terminal_(terminal) {}

ProgressBar::~ProgressBar() { clear(); }

void ProgressBar::clear() {
  if (drawn_) std::fputs("\r\033[K", stderr);
  drawn_ = false;
}

void ProgressBar::update(const ProgressEvent& event) {
  const auto now = Clock::now();
  const bool new_phase = event.phase != phase_;
  if (new_phase) {
    phase_ = event.phase;
    phase_start_ = now;
  }
  const bool finished = event.done == event.total;
  const double since = std::chrono::duration<double>(now - last_).count();
  if (!new_phase && !finished &&
      since < (terminal_ ? kRedrawSeconds : kLineSeconds)) {
    return;
  }
  last_ = now;
  draw(event, now);
  if (finished) clear();
}

void ProgressBar::draw(const ProgressEvent& event, Clock::time_point now) {
  const double elapsed =
      std::chrono::duration<double>(now - phase_start_).count();
  const double left = event.done == 0
                          ? -1
                          : elapsed / static_cast<double>(event.done) *
                                static_cast<double>(event.total - event.done);
  if (terminal_) {
    std::fprintf(stderr, "\r\033[K%s [%s] %zu/%zu  ETA %s  %s",
                 event.phase.c_str(), bar(event.done, event.total).c_str(),
                 event.done, event.total, format_eta(left).c_str(),
                 printable(event.detail).c_str());
    std::fflush(stderr);
    drawn_ = true;
  } else {
    std::fprintf(stderr, "%s %zu/%zu  ETA %s  %s\n", event.phase.c_str(),
                 event.done, event.total, format_eta(left).c_str(),
                 printable(event.detail).c_str());
  }
}

}  // namespace llmpress
