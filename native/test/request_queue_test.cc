// Which section a node goes to, what a read sees meanwhile, and how room is counted.
#include <cstdint>
#include <string>

#include "bench.h"

// The sanitizers stop at an allocation that is too large, unless they are told to answer as the system does.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
extern "C" const char* __tsan_default_options() { return "allocator_may_return_null=1"; }

namespace {

using namespace block_queue_test;

// ---- Placement ----

void sections_are_numbered_by_the_queue() {
  Bench bench;
  check_equal(bench.put(0), 1u);
  check_equal(bench.put(100), 1u, "independent nodes share the open section");
  check_equal(bench.put(200, 2), 2u, "a node goes no earlier than it may");
  bench.flush(1);
  check_equal(bench.run(), "W{0,100} S W{200} S");
  check_equal(bench.put(300), 3u, "what is sealed takes nothing more");
  check_equal(bench.put(400, 1), 3u, "an old position means the open section");
}

void nodes_of_a_section_come_in_the_order_of_their_offsets() {
  Bench bench;
  for (const uint64_t offset : {64, 0, 128, 32}) bench.put(offset);
  bench.flush(1);
  check_equal(bench.run(), "W{0,32,64,128} S");
}

void a_newer_version_folds_into_one_that_waits() {
  Bench bench;
  check_equal(bench.put(0, 0, 'a'), 1u);
  check_equal(bench.put(0, 0, 'b'), 1u);
  check_equal(bench.put(4, 0, 'c', 4), 1u, "a part of a node that waits");
  check_equal(bench.queue.queued_nodes(), 1u);
  check_equal(bench.queue.counters().nodes_queued, 3u);
  check_equal(bench.queue.counters().nodes_coalesced, 2u);
  bench.flush(1);
  check_equal(bench.begin(), "W{0}");
  check_equal(content(bench.action, 0), "bbbbccccbbbbbbbb");
}

void a_newer_version_folds_into_a_later_section_than_it_needs() {
  Bench bench;
  bench.put(0);
  check_equal(bench.put(100, 2, 'a'), 2u);
  check_equal(bench.put(100, 0, 'b'), 2u, "its section is what its successors go behind");
  check_equal(bench.queue.queued_nodes(), 2u);
}

void nothing_folds_into_a_section_before_what_it_depends_on() {
  Bench bench;
  check_equal(bench.put(0, 0, 'a'), 1u);
  check_equal(bench.put(0, 2, 'b'), 2u);
  check_equal(bench.queue.queued_nodes(), 2u, "two versions");
  check_equal(bench.put(0, 1, 'c'), 2u, "the newest version is folded into, not the older one");
  bench.flush(1);
  check_equal(bench.begin(), "W{0}");
  check_equal(content(bench.action, 0), std::string(kUnit, 'a'));
  bench.end();
  check_equal(bench.step(), "S");
  check_equal(bench.begin(), "W{0}");
  check_equal(content(bench.action, 0), std::string(kUnit, 'c'));
}

void nothing_folds_into_a_section_in_flight() {
  Bench bench;
  bench.put(0, 0, 'a');
  bench.flush(1);
  check_equal(bench.begin(), "W{0}");
  check_equal(bench.put(0, 0, 'b'), 2u);
  check_equal(content(bench.action, 0), std::string(kUnit, 'a'), "the worker's bytes stay");
  bench.end();
  bench.flush(2);
  check_equal(bench.run(), "S W{0} S", "never two versions at once");
  check_equal(bench.over(), "1 2");
}

void overlaps_that_no_node_contains_go_behind() {
  Bench bench;
  check_equal(bench.put(0, 0, 'a'), 1u);
  check_equal(bench.put(8, 0, 'b'), 2u, "overlaps the end");
  check_equal(bench.put(0, 0, 'c', 4), 1u, "the newest version of these bytes waits in 1");
  check_equal(bench.put(6, 0, 'd', 4), 3u, "touches both");
  check_equal(bench.put(0, 0, 'e', 64), 4u, "covers all three: not folded, they are not it");
  check_equal(bench.put(16, 3, 'f', 8), 4u);
  check_equal(bench.put(24, 0, 'g', 100), 5u);
  check_equal(bench.put(124, 0, 'h'), 1u, "begins where another ends");
  bench.flush(1);
  check_equal(bench.run(), "W{0,124} S W{8} S W{6} S W{0} S W{24} S");
}

void a_long_node_is_found_from_far_behind_its_start() {
  Bench bench;
  bench.put(0, 0, 'l', 1 << 20);
  for (uint64_t offset = 1 << 21; offset < (1 << 21) + 64 * kUnit; offset += kUnit) bench.put(offset);
  check_equal(bench.put((1 << 20) - 1, 0, 'x', 1), 1u, "folded into its last byte");
  check_equal(bench.put((1 << 20) - 1, 0, 'x', 2), 2u);
  check_equal(bench.queue.pending_section(1 << 20, 1), 2u);
  check_equal(bench.queue.pending_section((1 << 20) + 1, 1), 0u);
  bench.flush(1);
  bench.run();
  check(!bench.queue.overlaps(0, 1 << 30), "nothing is left in the index");
}

// ---- The overlay ----

void a_read_sees_the_newest_bytes_that_wait() {
  Bench bench;
  bench.put(0, 0, 'a');
  bench.put(8, 0, 'b', 4);
  bench.put(12, 2, 'c', 8);
  bench.put(18, 3, 'd', 4);
  check_equal(bench.seen(0, 24), "aaaaaaaabbbbccccccdddd..");
  check_equal(bench.seen(10, 4), "bbcc");
  check_equal(bench.seen(22, 4), "....");
  check_equal(bench.seen(15, 1), "c");
}

void a_read_sees_the_bytes_in_flight_until_they_are_written() {
  Bench bench;
  bench.put(0, 0, 'a');
  bench.flush(1);
  check_equal(bench.begin(), "W{0}");
  check_equal(bench.seen(0, 20), "aaaaaaaaaaaaaaaa....");
  bench.put(4, 0, 'b', 4);
  check_equal(bench.seen(0, 20), "aaaabbbbaaaaaaaa....", "the newer one waits behind the one in flight");
  bench.end();
  check_equal(bench.seen(0, 20), "....bbbb............", "the file answers for what is written");
}

void an_empty_range_touches_nothing() {
  Bench bench;
  bench.put(0);
  check(!bench.queue.overlaps(4, 0), "no length");
  check(!bench.queue.overlaps(kUnit, 8), "just behind");
  check(bench.queue.overlaps(kUnit - 1, 8), "the last byte");
  check(bench.queue.overlaps(kUnit - 1, UINT64_MAX), "a range without end");
  check_equal(bench.seen(4, 0), "");
}

void the_pending_section_is_that_of_the_newest_version() {
  Bench bench;
  bench.put(0);
  bench.put(0, 2);
  check_equal(bench.queue.pending_section(0, 1), 2u);
  bench.flush(1);
  bench.step();
  bench.step();
  check_equal(bench.begin(), "W{0}");
  check_equal(bench.queue.pending_section(0, 1), 2u, "in flight counts");
  bench.end();
  check_equal(bench.queue.pending_section(0, 1), 0u, "written does not: the file has it");
}

// ---- Room ----

void bytes_and_nodes_are_counted_until_they_are_written() {
  Bench bench;
  bench.put(0);
  bench.put(0);
  bench.put(100, 2, 'x', 40);
  check_equal(bench.queue.queued_bytes(), kUnit + 40, "folding takes no room");
  check_equal(bench.queue.queued_nodes(), 2u);
  bench.flush(1);
  bench.begin();
  check_equal(bench.queue.queued_bytes(), kUnit + 40, "what is in flight still takes its room");
  bench.end();
  check_equal(bench.queue.queued_bytes(), 40u);
  bench.run();
  check_equal(bench.queue.queued_bytes(), 0u);
  check_equal(bench.queue.queued_nodes(), 0u);
  check_equal(bench.queue.counters().queued_bytes_peak, kUnit + 40);
  check_equal(bench.queue.counters().queued_nodes_peak, 2u);
  check_equal(bench.queue.counters().node_bytes_written, kUnit + 40);
}

void the_bytes_of_nodes_are_aligned_in_memory() {
  Bench bench(SyncPolicy::kOnFlush, 4096);
  for (uint64_t offset = 0; offset < 8 * 512; offset += 512) bench.put(offset, 0, 'x', 512);
  bench.flush(1);
  bench.begin();
  check_equal(bench.action.nodes->size(), 8u);
  for (const auto& [offset, node] : *bench.action.nodes) {
    check_equal(reinterpret_cast<uintptr_t>(node->bytes.data()) % 4096, 0u);
  }
}

void a_node_without_memory_changes_nothing() {
  Bench bench;
  const uint8_t byte = 0;
  // More than any machine has: the copy fails before the first byte is read.
  check_equal(bench.queue.enqueue(0, &byte, size_t{1} << 60, 0, 0), 0u);
  check_equal(bench.queue.queued_nodes(), 0u);
  check_equal(bench.queue.counters().nodes_queued, 0u);
  check_equal(bench.put(0), 1u);
}

}  // namespace

int main() {
  return run_all({
      {"sections are numbered by the queue", sections_are_numbered_by_the_queue},
      {"nodes of a section come in the order of their offsets", nodes_of_a_section_come_in_the_order_of_their_offsets},
      {"a newer version folds into one that waits", a_newer_version_folds_into_one_that_waits},
      {"a newer version folds into a later section than it needs",
       a_newer_version_folds_into_a_later_section_than_it_needs},
      {"nothing folds into a section before what it depends on",
       nothing_folds_into_a_section_before_what_it_depends_on},
      {"nothing folds into a section in flight", nothing_folds_into_a_section_in_flight},
      {"overlaps that no node contains go behind", overlaps_that_no_node_contains_go_behind},
      {"a long node is found from far behind its start", a_long_node_is_found_from_far_behind_its_start},
      {"a read sees the newest bytes that wait", a_read_sees_the_newest_bytes_that_wait},
      {"a read sees the bytes in flight until they are written",
       a_read_sees_the_bytes_in_flight_until_they_are_written},
      {"an empty range touches nothing", an_empty_range_touches_nothing},
      {"the pending section is that of the newest version", the_pending_section_is_that_of_the_newest_version},
      {"bytes and nodes are counted until they are written", bytes_and_nodes_are_counted_until_they_are_written},
      {"the bytes of nodes are aligned in memory", the_bytes_of_nodes_are_aligned_in_memory},
      {"a node without memory changes nothing", a_node_without_memory_changes_nothing},
  });
}
