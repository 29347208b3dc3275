// For the tests' own thread only.
#ifndef BLOCK_QUEUE_TEST_REQUEST_QUEUE_INSPECTOR_H_
#define BLOCK_QUEUE_TEST_REQUEST_QUEUE_INSPECTOR_H_

#include <cstdint>
#include <functional>
#include <string>

#include "../request_queue.h"

namespace block_queue {

// Writes down all that decides what a queue does from here on, but for ages, which these tests do not have. Sections
// are told by their distance from the open one; those that are durable are all alike.
class RequestQueueInspector {
 public:
  // name: of a waiter, by its id.
  static void describe(const RequestQueue& queue, const std::function<char(uint64_t)>& name, std::string* into) {
    const auto put = [into](int64_t number) { *into += std::to_string(number) + ' '; };
    const auto put_section = [&](Section section) {
      put(section <= queue.durable_ ? -1000 : static_cast<int64_t>(section) - static_cast<int64_t>(queue.open_));
    };
    const auto put_nodes = [&](const NodesByOffset& nodes) {
      for (const auto& [offset, node] : nodes) {
        put(static_cast<int64_t>(offset));
        into->append(reinterpret_cast<const char*>(node->bytes.data()), node->bytes.size());
      }
      *into += ';';
    };
    const auto put_waiters = [&](const Waiters& waiters) {
      for (const Waiter& waiter : waiters) {
        *into += name(waiter.id);
        put_section(waiter.target);
      }
      *into += ';';
    };
    for (const auto& [section, nodes] : queue.queued_) {
      put_section(section);
      put_nodes(nodes);
    }
    put_section(queue.sealed_section_);
    put_nodes(queue.sealed_);
    put_section(queue.highest_);
    put(static_cast<int64_t>(queue.open_ - queue.durable_));
    put(queue.nodes_unsynced_);
    put(queue.data_unsynced_);
    put(static_cast<int64_t>(queue.outstanding_));
    put_section(queue.sync_covers_);
    put_waiters(queue.sync_finishes_);
    put_waiters(queue.flushes_);
    put_waiters(queue.awaiting_);
    put_section(queue.drain_target_);
    put_section(queue.idle_target_);
    put(queue.poisoned_);
    put(queue.stalled_);
  }

  static int64_t distance(const RequestQueue& queue, Section section) {
    if (section <= queue.durable_) return -1000;
    return static_cast<int64_t>(section) - static_cast<int64_t>(queue.open_);
  }
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_TEST_REQUEST_QUEUE_INSPECTOR_H_
