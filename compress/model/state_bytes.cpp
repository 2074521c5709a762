#include "compress/calibration/state_bytes.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

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

class Writer {
 public:
  Writer(ScratchFile& file, std::size_t offset) : file_(file), at_(offset) {}

  template <class T>
  void add(std::span<const T> values) {
    const auto bytes = std::as_bytes(values);
    file_.write(at_, bytes);
    at_ += bytes.size();
  }

 private:
  ScratchFile& file_;
  std::size_t at_;
};

class Reader {
 public:
  Reader(const ScratchFile& file, std::size_t offset)
      : file_(file), at_(offset) {}

  template <class T>
  void take(std::span<T> values) {
    const auto bytes = std::as_writable_bytes(values);
    file_.read(at_, bytes);
    at_ += bytes.size();
  }
  template <class T>
  std::vector<T> take_vector(Number size) {
    std::vector<T> values(size);
    take(std::span(values));
    return values;
  }

 private:
  const ScratchFile& file_;
  std::size_t at_;
};

std::size_t routing_bytes(const Routing& routing) {
  return routing.offsets.size() * sizeof(std::size_t) +
         routing.token.size() * sizeof(std::uint32_t) +
         routing.weight.size() * sizeof(float) + routing.idle.size();
}

SharedRouting read_routing(std::span<const Number> sizes, Reader& reader) {
  auto routing = std::make_shared<Routing>();
  routing->tokens = sizes[0];
  routing->offsets = reader.take_vector<std::size_t>(sizes[1]);
  routing->token = reader.take_vector<std::uint32_t>(sizes[2]);
  routing->weight = reader.take_vector<float>(sizes[3]);
  const auto idle = reader.take_vector<std::uint8_t>(sizes[4]);
  routing->idle.assign(idle.begin(), idle.end());
  return routing;
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
  Routings routings;
  const std::vector<Number> head = head_of(state, routings);
  Writer writer(file, offset);
  writer.add(std::span(head));
  for (const SharedRouting& routing : routings.all()) {
    writer.add(std::span(routing->offsets));
    writer.add(std::span(routing->token));
    writer.add(std::span(routing->weight));
    const std::vector<std::uint8_t> idle(routing->idle.begin(),
                                         routing->idle.end());
    writer.add(std::span(idle));
  }
  each_part(
      state, [&](const MatrixF& m) { writer.add(m.data()); },
      [](const SharedRouting&) {});
}

BlockState read_state(const ScratchFile& file, std::size_t offset) {
  Number counts[3];
  Reader(file, offset).take(std::span<Number>(counts));
  Reader reader(file, offset);
  const auto head = reader.take_vector<Number>(counts[2]);
  BlockState state;
  state.others.resize(counts[0]);
  state.carried.resize(counts[1]);
  // Sizes of routings stand behind 3 numbers for each value.
  const std::size_t values = 2 + counts[0] + counts[1];
  const std::size_t shapes = 3 + 2 * values + (values - 1);
  std::vector<SharedRouting> routings;
  for (std::size_t at = shapes; at < head.size(); at += 5) {
    routings.push_back(read_routing(std::span(head).subspan(at, 5), reader));
  }
  std::size_t at = 3;
  each_part(
      state,
      [&](MatrixF& m) {
        m = MatrixF(head[at], head[at + 1]);
        at += 2;
        reader.take(m.data());
      },
      [&](SharedRouting& r) {
        const Number place = head[at++];
        if (place != 0) r = routings[place - 1];
      });
  return state;
}

}  // namespace llmpress
