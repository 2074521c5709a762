#include "compress/core/ranks.h"

#include <cassert>

namespace llmpress {

struct Ranks::Link {
  std::shared_ptr<RankTransport> transport;
  RankTraffic traffic{};
};

namespace {

std::span<const std::byte> bytes_in(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::span<std::byte> room_in(std::string& text) {
  return std::as_writable_bytes(std::span(text));
}

}  // namespace

Ranks::Ranks(std::shared_ptr<RankTransport> transport) {
  assert(transport != nullptr);
  rank_ = transport->rank();
  size_ = transport->size();
  if (size_ > 1) link_ = std::make_shared<Link>(Link{std::move(transport)});
}

void Ranks::barrier() const { (void)gather("."); }

std::string Ranks::broadcast(std::string bytes, std::size_t root) const {
  if (link_ == nullptr) return bytes;
  std::uint64_t size = bytes.size();
  link_->transport->broadcast(std::as_writable_bytes(std::span(&size, 1)),
                              root);
  bytes.resize(size);
  link_->transport->broadcast(room_in(bytes), root);
  if (rank_ == root) {
    link_->traffic.sent += (size + sizeof(size)) * (size_ - 1);
  } else {
    link_->traffic.received += size + sizeof(size);
  }
  return bytes;
}

void Ranks::broadcast(std::span<float> numbers, std::size_t root) const {
  if (link_ == nullptr) return;
  link_->transport->broadcast(std::as_writable_bytes(numbers), root);
  if (rank_ == root) {
    link_->traffic.sent += numbers.size_bytes() * (size_ - 1);
  } else {
    link_->traffic.received += numbers.size_bytes();
  }
}

std::vector<std::string> Ranks::gather(std::string_view bytes) const {
  return gather(bytes, false);
}

std::vector<std::string> Ranks::gather_on_first(std::string_view bytes) const {
  return gather(bytes, true);
}

std::vector<std::string> Ranks::gather(std::string_view bytes,
                                       bool on_first_alone) const {
  std::vector<std::string> all(size_);
  all[rank_] = bytes;
  if (link_ == nullptr) return all;
  std::vector<std::uint64_t> sizes(size_);
  sizes[rank_] = bytes.size();
  std::vector<std::span<const std::byte>> to(
      size_, std::as_bytes(std::span(&sizes[rank_], 1)));
  std::vector<std::span<std::byte>> from;
  for (std::uint64_t& size : sizes) {
    from.push_back(std::as_writable_bytes(std::span(&size, 1)));
  }
  to[rank_] = {};
  from[rank_] = {};
  exchange(to, from);
  for (std::size_t r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    const bool sends = !on_first_alone || r == 0;
    const bool receives = !on_first_alone || is_first();
    if (receives) all[r].resize(sizes[r]);
    to[r] = sends ? bytes_in(bytes) : std::span<const std::byte>{};
    from[r] = room_in(all[r]);
  }
  exchange(to, from);
  return all;
}

void Ranks::exchange(std::span<const std::span<const std::byte>> to,
                     std::span<const std::span<std::byte>> from) const {
  if (link_ == nullptr) return;
  assert(to.size() == size_ && from.size() == size_);
  assert(to[rank_].empty() && from[rank_].empty());
  link_->transport->exchange(to, from);
  for (const auto& bytes : to) link_->traffic.sent += bytes.size();
  for (const auto& bytes : from) link_->traffic.received += bytes.size();
}

std::string Ranks::shift(std::string_view bytes) const {
  if (link_ == nullptr) return {};
  const bool sends = rank_ + 1 < size_, receives = rank_ > 0;
  const auto to_next = [&](std::span<const std::byte> sent,
                           std::span<std::byte> received) {
    std::vector<std::span<const std::byte>> to(size_);
    std::vector<std::span<std::byte>> from(size_);
    if (sends) to[rank_ + 1] = sent;
    if (receives) from[rank_ - 1] = received;
    exchange(to, from);
  };
  const std::uint64_t own = bytes.size();
  std::uint64_t size = 0;
  to_next(std::as_bytes(std::span(&own, 1)),
          std::as_writable_bytes(std::span(&size, 1)));
  std::string received(size, '\0');
  to_next(bytes_in(bytes), room_in(received));
  return received;
}

Ranks Ranks::split(std::size_t color) const {
  return link_ == nullptr ? *this : Ranks(link_->transport->split(color));
}

void Ranks::set_patience(std::chrono::seconds patience) const {
  if (link_ != nullptr) link_->transport->set_patience(patience);
}

RankTraffic Ranks::traffic() const {
  return link_ == nullptr ? RankTraffic{} : link_->traffic;
}

}  // namespace llmpress
