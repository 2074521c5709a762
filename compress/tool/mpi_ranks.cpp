#include "compress/tool/mpi_ranks.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "compress/core/cancel.h"
#include "compress/core/formatted.h"

#ifdef LLMPRESS_HAVE_MPI
#include <mpi.h>
#endif

namespace llmpress {
namespace {

// How many processes a launcher says that it started, and which this one is.
struct Launch {
  std::size_t size = 1, rank = 0;
  bool known = false;
};

std::size_t number_in(const char* name) {
  const char* const text = std::getenv(name);
  return text == nullptr ? 0 : std::strtoul(text, nullptr, 10);
}

Launch read_launch() {
  static constexpr const char* kNames[][2] = {
      {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},  // mpirun of Open MPI
      {"PMI_SIZE", "PMI_RANK"},                          // MPICH, srun
      {"PMIX_SIZE", "PMIX_RANK"},
      {"SLURM_NTASKS", "PMIX_RANK"}};  // srun --mpi=pmix
  for (const auto& [size, rank] : kNames) {
    if (std::getenv(rank) == nullptr || std::getenv(size) == nullptr) continue;
    return {std::max<std::size_t>(1, number_in(size)), number_in(rank), true};
  }
  return {};
}

#ifdef LLMPRESS_HAVE_MPI

// Counts of MPI are ints.
constexpr std::size_t kMostBytes = std::size_t{1} << 30;

void check(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(ErrorCode::kIo, "MPI: {}: {}", what,
       std::string_view(text, static_cast<std::size_t>(length)));
}

// What is on its way, and the rank at its other end.
struct Messages {
  std::vector<MPI_Request> requests{};
  std::vector<int> ranks{};

  MPI_Request* add(int rank) {
    ranks.push_back(rank);
    requests.push_back(MPI_REQUEST_NULL);
    return &requests.back();
  }
  // Of one that has not come; any if all have meanwhile.
  int missing() {
    for (std::size_t i = 0; i < requests.size(); ++i) {
      int done = 0;
      check(MPI_Test(&requests[i], &done, MPI_STATUS_IGNORE), "waiting");
      if (done == 0) return ranks[i];
    }
    return ranks.front();
  }
};

// Waits without keeping a processor from the ranks that are waited for; `patience`
// as RankTransport has it.
void wait_for(Messages messages, std::chrono::seconds patience) {
  using Clock = std::chrono::steady_clock;
  constexpr int kSpins = 2000;
  // Pieces of a message move on when they are asked for.
  constexpr auto kLongestPause = std::chrono::microseconds(100);
  auto pause = std::chrono::microseconds(20);
  const auto start = Clock::now();
  for (int turn = 0;; ++turn) {
    int done = 0;
    check(MPI_Testall(static_cast<int>(messages.requests.size()),
                      messages.requests.data(), &done, MPI_STATUSES_IGNORE),
          "waiting");
    if (done != 0) return;
    stop_if_cancelled();
    if (turn < kSpins) {
      std::this_thread::yield();
      continue;
    }
    if (patience.count() != 0 && Clock::now() - start > patience) {
      fail(ErrorCode::kIo,
           "waited {} s for rank {} (--stall-limit): it is stopped, or stands "
           "still at a file or the network",
           patience.count(), messages.missing());
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, kLongestPause);
  }
}

// In pieces of what MPI can count.
template <class Bytes, class Body>
void in_pieces(Bytes bytes, const Body& body) {
  for (std::size_t at = 0; at < bytes.size(); at += kMostBytes) {
    const auto piece =
        bytes.subspan(at, std::min(kMostBytes, bytes.size() - at));
    body(piece, static_cast<int>(piece.size()));
  }
}

class MpiTransport : public RankTransport {
 public:
  // Of the processes of `comm`.
  explicit MpiTransport(MPI_Comm comm) : comm_(comm) {
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "start");
    check(MPI_Comm_rank(comm_, &rank_), "rank");
    check(MPI_Comm_size(comm_, &size_), "size");
  }
  ~MpiTransport() override {
    int ended = 0;
    if (comm_ == MPI_COMM_WORLD || MPI_Finalized(&ended) != MPI_SUCCESS) return;
    if (ended == 0) MPI_Comm_free(&comm_);
  }
  MpiTransport(const MpiTransport&) = delete;
  MpiTransport& operator=(const MpiTransport&) = delete;

  std::size_t rank() const override { return static_cast<std::size_t>(rank_); }
  std::size_t size() const override { return static_cast<std::size_t>(size_); }

  void broadcast(std::span<std::byte> bytes, std::size_t root) override {
    Messages messages;
    const int from = static_cast<int>(root);
    in_pieces(bytes, [&](std::span<std::byte> piece, int count) {
      check(MPI_Ibcast(piece.data(), count, MPI_BYTE, from, comm_,
                       messages.add(from)),
            "broadcast");
    });
    wait_for(std::move(messages), patience_);
  }

  void exchange(std::span<const std::span<const std::byte>> to,
                std::span<const std::span<std::byte>> from) override {
    Messages messages;
    for (int r = 0; r < size_; ++r) {
      in_pieces(from[static_cast<std::size_t>(r)],
                [&](std::span<std::byte> piece, int count) {
                  check(MPI_Irecv(piece.data(), count, MPI_BYTE, r, kTag, comm_,
                                  messages.add(r)),
                        "receive");
                });
    }
    for (int step = 1; step < size_; ++step) {
      const int r = (rank_ + step) % size_;
      in_pieces(to[static_cast<std::size_t>(r)],
                [&](std::span<const std::byte> piece, int count) {
                  check(MPI_Isend(piece.data(), count, MPI_BYTE, r, kTag, comm_,
                                  messages.add(r)),
                        "send");
                });
    }
    wait_for(std::move(messages), patience_);
  }

  std::shared_ptr<RankTransport> split(std::size_t color) override {
    MPI_Comm part = MPI_COMM_NULL;
    check(MPI_Comm_split(comm_, static_cast<int>(color), rank_, &part),
          "split");
    auto transport = std::make_shared<MpiTransport>(part);
    transport->set_patience(patience_);
    return transport;
  }
  void set_patience(std::chrono::seconds patience) override {
    patience_ = patience;
  }

 private:
  static constexpr int kTag = 1;
  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::chrono::seconds patience_{0};
};

// This machine and the processors of it that this process may run on.
std::string own_processors() {
  char host[256] = {};
  (void)::gethostname(host, sizeof(host) - 1);
  cpu_set_t mask;
  CPU_ZERO(&mask);
  (void)::sched_getaffinity(0, sizeof(mask), &mask);
  return std::string(host) + '/' +
         std::string(reinterpret_cast<const char*>(&mask), sizeof(mask));
}

#endif

}  // namespace

MpiRanks::MpiRanks() {
  const Launch launch = read_launch();
  if (!launch.known) return;
#ifdef LLMPRESS_HAVE_MPI
  int level = 0;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level),
        "start");
  running_ = true;
  ranks_ = Ranks(std::make_shared<MpiTransport>(MPI_COMM_WORLD));
  const std::string own = own_processors();
  const auto all = ranks_.gather(own);
  sharing_ = static_cast<std::size_t>(std::ranges::count(all, own));
#else
  if (launch.size == 1) return;
  fail(ErrorCode::kInvalidArgument,
       "started as process {} of {}, but this llmpress is built without MPI: "
       "each would do all of the work; build it with -D LLMPRESS_MPI=ON, or "
       "start one process",
       launch.rank, launch.size);
#endif
}

void MpiRanks::end() {
#ifdef LLMPRESS_HAVE_MPI
  if (!running_) return;
  running_ = false;
  ranks_.barrier();
  MPI_Finalize();
#endif
}

void MpiRanks::abort([[maybe_unused]] int exit_code) const {
#ifdef LLMPRESS_HAVE_MPI
  if (running_ && ranks_.is_spread()) MPI_Abort(MPI_COMM_WORLD, exit_code);
#endif
}

}  // namespace llmpress
