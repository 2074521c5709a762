#include "compress/model/state_bytes.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

using Number = std::uint64_t;
using SharedRouting = std::shared_ptr<const Routing>;

// Every routing of a state, once; a reference to one is its place + 1, 0: none.
class Routings {
 public:
  Number place_of(const SharedRouting& routing) {
    if (routing == nullptr) return 0;
    auto found = std::ranges::find(all_, routing);
    if (found == all_.end()) found = all_.insert(all_.end(), routing);
    return static_cast<Number>(found - all_.begin()) + 1;
  }
  const std::vector<SharedRouting>& all() const { return all_; }

 private:
  std::vector<SharedRouting> all_;
};

// What a state is made of, in one order for all that goes over it.
template <class State, class Rows, class Reference>
void each_part(State& state, const Rows& rows, const Reference& routing) {
  rows(state.hidden);
  rows(state.stage_input);
  routing(state.routing);
  for (auto* const values : {&state.others, &state.carried}) {
    for (auto& value : *values) {
      rows(value.rows);
      routing(value.routing);
    }
  }
}

// The head: how many values of each kind, the size of the head itself, then
// shapes and references in order, then the sizes of the routings.
std::vector<Number> head_of(const BlockState& state, Routings& routings) {
  std::vector<Number> head{state.others.size(), state.carried.size(), 0};
  each_part(
      state,
      [&](const MatrixF& m) {
        head.push_back(m.rows());
        head.push_back(m.cols());
      },
      [&](const SharedRouting& r) { head.push_back(routings.place_of(r)); });
  for (const SharedRouting& routing : routings.all()) {
    for (const Number n :
         {Number{routing->tokens}, Number{routing->offsets.size()},
          Number{routing->token.size()}, Number{routing->weight.size()},
          Number{routing->idle.size()}}) {
      head.push_back(n);
    }
  }
  head[2] = head.size();
  return head;
}

// What takes bytes one after another, or fills them.
using Sink = std::function<void(std::span<const std::byte>)>;
using Source = std::function<void(std::span<std::byte>)>;

template <class T>
void put(const Sink& sink, std::span<const T> values) {
  sink(std::as_bytes(values));
}

template <class T>
void fill(const Source& source, std::span<T> values) {
  source(std::as_writable_bytes(values));
}

template <class T>
std::vector<T> take_vector(const Source& source, Number size) {
  std::vector<T> values(size);
  fill(source, std::span(values));
  return values;
}

std::size_t routing_bytes(const Routing& routing) {
  return routing.offsets.size() * sizeof(std::size_t) +
         routing.token.size() * sizeof(std::uint32_t) +
         routing.weight.size() * sizeof(float) + routing.idle.size();
}

SharedRouting take_routing(std::span<const Number> sizes,
                           const Source& source) {
  auto routing = std::make_shared<Routing>();
  routing->tokens = sizes[0];
  routing->offsets = take_vector<std::size_t>(source, sizes[1]);
  routing->token = take_vector<std::uint32_t>(source, sizes[2]);
  routing->weight = take_vector<float>(source, sizes[3]);
  const auto idle = take_vector<std::uint8_t>(source, sizes[4]);
  routing->idle.assign(idle.begin(), idle.end());
  return routing;
}

void put_state(const BlockState& state, const Sink& sink) {
  Routings routings;
  const std::vector<Number> head = head_of(state, routings);
  put(sink, std::span(head));
  for (const SharedRouting& routing : routings.all()) {
    put(sink, std::span(routing->offsets));
    put(sink, std::span(routing->token));
    put(sink, std::span(routing->weight));
    const std::vector<std::uint8_t> idle(routing->idle.begin(),
                                         routing->idle.end());
    put(sink, std::span(idle));
  }
  each_part(
      state, [&](const MatrixF& m) { put(sink, m.data()); },
      [](const SharedRouting&) {});
}

BlockState take_state(const Source& source) {
  std::vector<Number> head(3);
  fill(source, std::span(head));
  const Number others = head[0], carried = head[1];
  head.resize(head[2]);
  fill(source, std::span(head).subspan(3));
  BlockState state;
  state.others.resize(others);
  state.carried.resize(carried);
  // Sizes of routings stand behind 3 numbers for each value.
  const std::size_t values = 2 + others + carried;
  const std::size_t shapes = 3 + 2 * values + (values - 1);
  std::vector<SharedRouting> routings;
  for (std::size_t at = shapes; at < head.size(); at += 5) {
    routings.push_back(take_routing(std::span(head).subspan(at, 5), source));
  }
  std::size_t at = 3;
  each_part(
      state,
      [&](MatrixF& m) {
        m = MatrixF(head[at], head[at + 1]);
        at += 2;
        fill(source, m.data());
      },
      [&](SharedRouting& r) {
        const Number place = head[at++];
        if (place != 0) r = routings[place - 1];
      });
  return state;
}

}  // namespace

std::size_t state_bytes(const BlockState& state) {
  Routings routings;
  std::size_t bytes = head_of(state, routings).size() * sizeof(Number);
  each_part(
      state, [&](const MatrixF& m) { bytes += m.size() * sizeof(float); },
      [](const SharedRouting&) {});
  for (const SharedRouting& routing : routings.all()) {
    bytes += routing_bytes(*routing);
  }
  return bytes;
}

void write_state(const BlockState& state, std::size_t offset,
                 ScratchFile& file) {
  put_state(state, [&](std::span<const std::byte> bytes) {
    file.write(offset, bytes);
    offset += bytes.size();
  });
}

BlockState read_state(const ScratchFile& file, std::size_t offset) {
  return take_state([&](std::span<std::byte> bytes) {
    file.read(offset, bytes);
    offset += bytes.size();
  });
}

std::string to_bytes(const BlockState& state) {
  std::string all;
  all.reserve(state_bytes(state));
  put_state(state, [&](std::span<const std::byte> bytes) {
    all.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  return all;
}

BlockState state_from_bytes(std::string_view all) {
  return take_state([&](std::span<std::byte> bytes) {
    if (all.size() < bytes.size()) {
      fail(ErrorCode::kCorruptFile, "a state's bytes are cut short");
    }
    std::ranges::copy(std::as_bytes(std::span(all.substr(0, bytes.size()))),
                      bytes.begin());
    all.remove_prefix(bytes.size());
  });
}

}  // namespace llmpress
