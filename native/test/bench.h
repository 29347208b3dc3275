// Test support. Called on one thread.
#ifndef BLOCK_QUEUE_TEST_BENCH_H_
#define BLOCK_QUEUE_TEST_BENCH_H_

#include <string>
#include <vector>

#include "../request_queue.h"
#include "check.h"

namespace block_queue_test {

using block_queue::Action;
using block_queue::RequestQueue;
using block_queue::Section;
using block_queue::SyncPolicy;
using block_queue::Waiter;
using block_queue::Waiters;

constexpr size_t kUnit = 16;
constexpr uint64_t kIdleLimitMs = 5000;

// A queue, its worker, and a short text of what the worker was told to do: "W{0,32} S" is a section of two nodes, then
// a sync.
struct Bench {
  explicit Bench(SyncPolicy policy = SyncPolicy::kOnFlush, size_t alignment = 1)
      : queue(policy, alignment, kIdleLimitMs) {}

  // A node of one unit, filled with `fill`.
  Section put(uint64_t offset, Section earliest = 0, char fill = 'x', size_t length = kUnit) {
    const std::vector<uint8_t> bytes(length, static_cast<uint8_t>(fill));
    return queue.enqueue(offset, bytes.data(), bytes.size(), earliest, now_ms);
  }

  void flush(uint64_t id) { queue.flush(id, &finished); }
  void await_durable(uint64_t id, Section section) { queue.await_durable(id, section, &finished); }

  // Take the next action, and leave it out.
  std::string begin() {
    action = queue.next(now_ms);
    switch (action.kind) {
      case Action::Kind::kIdle:
        return "-";
      case Action::Kind::kSync:
        return "S";
      case Action::Kind::kWrite:
        break;
    }
    std::string text = "W{";
    for (const auto& [offset, node] : *action.nodes) {
      if (text.back() != '{') text += ',';
      text += std::to_string(offset);
    }
    return text + "}";
  }

  void end(int error = 0) {
    if (action.kind == Action::Kind::kWrite) queue.written(error, &finished);
    if (action.kind == Action::Kind::kSync) queue.synced(error, &finished);
    action = {};
  }

  std::string step(int error = 0) {
    std::string text = begin();
    end(error);
    return text;
  }

  // Until the worker has nothing to do.
  std::string run() {
    std::string trace;
    for (std::string text = step(); text != "-"; text = step()) trace += (trace.empty() ? "" : " ") + text;
    return trace;
  }

  // Who is over since the last call: "1 2:5" is waiter 1 in good order, then waiter 2 with errno 5.
  std::string over() {
    std::string text;
    for (const Waiter& one : finished) {
      text += (text.empty() ? "" : " ") + std::to_string(one.id);
      if (one.error != 0) text += ":" + std::to_string(one.error);
    }
    finished.clear();
    return text;
  }

  // What a read would see of a file of dots.
  std::string seen(uint64_t offset, size_t length) const {
    std::string text(length, '.');
    for (const auto& piece : queue.collect_overlay(offset, length)) {
      check(piece.offset >= offset && piece.offset + piece.bytes.size() <= offset + length,
            "a piece lies in the range");
      text.replace(piece.offset - offset, piece.bytes.size(), std::string(piece.bytes.begin(), piece.bytes.end()));
    }
    return text;
  }

  RequestQueue queue;
  Action action;
  Waiters finished;
  uint64_t now_ms = 1000;
};

// The bytes of one node of an action.
inline std::string content(const Action& action, size_t index) {
  const auto& bytes = std::next(action.nodes->begin(), static_cast<ptrdiff_t>(index))->second->bytes;
  return std::string(bytes.data(), bytes.data() + bytes.size());
}

}  // namespace block_queue_test

#endif  // BLOCK_QUEUE_TEST_BENCH_H_
