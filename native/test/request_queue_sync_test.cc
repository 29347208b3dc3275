// Which syncs are made, whom they serve, and what happens when something fails.
#include <cerrno>
#include <string>

#include "bench.h"

namespace {

using namespace block_queue_test;

// ---- Barriers ----

void barriers_of_independent_contexts_cost_one_sync() {
  Bench bench;
  for (uint64_t context = 0; context < 3; ++context) {
    const Section refcounts = bench.put(context * 100);
    bench.put(1000 + context * 100, refcounts + 1);
  }
  bench.flush(1);
  check_equal(bench.run(), "W{0,100,200} S W{1000,1100,1200} S");
  check_equal(bench.queue.counters().barriers_issued, 1u);
  check_equal(bench.queue.counters().syncs_issued, 2u);
}

void data_counts_as_durable_only_by_a_sync_that_starts_later() {
  Bench bench;
  bench.put(0);
  bench.queue.data_written();
  check_equal(bench.queue.section_after_data(), 2u, "idle: the sync in front of 2 is to come");
  bench.flush(1);
  check_equal(bench.begin(), "W{0}");
  bench.queue.data_written();
  check_equal(bench.queue.section_after_data(), 2u, "1 is being written: so is it now");
  bench.end();
  bench.queue.data_written();
  check_equal(bench.queue.section_after_data(), 2u, "1 is written: so is it still");
  check_equal(bench.begin(), "S");
  bench.queue.data_written();
  check_equal(bench.queue.section_after_data(), 3u, "it has started: the one in front of 3 covers this");
  check_equal(bench.put(500), 2u, "a node that needs no sync goes in front of it");
  bench.end();
  check_equal(bench.queue.section_after_data(), 3u, "it is over: the same");
  check_equal(bench.put(100, 3), 3u);
  bench.flush(2);
  check_equal(bench.run(), "W{500} S W{100} S");
}

void an_empty_section_costs_a_sync_only_for_data_that_needs_it() {
  Bench bench;
  bench.queue.data_written();
  check_equal(bench.put(0, bench.queue.section_after_data()), 2u, "nothing is in 1");
  bench.flush(1);
  check_equal(bench.run(), "S W{0} S");
  check_equal(bench.put(100, bench.queue.section_after_data()), 4u);
  bench.flush(2);
  check_equal(bench.run(), "W{100} S", "no data was written since the last sync started");
}

void data_needs_no_sync_in_front_of_a_section_that_does_not_depend_on_it() {
  Bench bench;
  bench.put(0);
  bench.queue.data_written();
  bench.put(100, bench.queue.section_after_data());
  bench.flush(1);
  check_equal(bench.run(), "W{0} S W{100} S", "two syncs, not three");
}

void a_sync_that_covered_the_data_already_is_not_made_again() {
  Bench bench;
  bench.queue.data_written();
  const Section behind = bench.queue.section_after_data();
  bench.flush(1);
  check_equal(bench.run(), "S");
  check_equal(bench.put(0, behind), 2u);
  bench.flush(2);
  check_equal(bench.run(), "W{0} S");
}

void an_empty_section_is_over_when_the_sync_behind_it_starts() {
  Bench bench;
  bench.queue.data_written();
  check_equal(bench.put(0, bench.queue.section_after_data()), 2u);
  bench.flush(1);
  check_equal(bench.begin(), "S");
  check_equal(bench.put(100), 2u, "shares the section behind it, not one more in front");
  bench.end();
  check_equal(bench.run(), "W{0,100} S");
}

void while_a_sync_runs_the_section_behind_it_takes_nodes() {
  Bench bench;
  bench.put(0);
  bench.put(100, 2, 'a');
  bench.flush(1);
  bench.step();
  check_equal(bench.begin(), "S");
  check_equal(bench.put(200), 2u, "merged");
  check_equal(bench.put(100, 0, 'b'), 2u, "folded");
  bench.end();
  check_equal(bench.begin(), "W{100,200}");
  check_equal(content(bench.action, 0), std::string(kUnit, 'b'));
}

// ---- Flushes ----

void a_lone_flush_does_not_wait() {
  Bench bench;
  bench.flush(1);
  check_equal(bench.run(), "S");
  check_equal(bench.over(), "1");
}

void nothing_is_done_unasked() {
  Bench bench;
  bench.put(0);
  bench.queue.data_written();
  check_equal(bench.step(), "-");
}

void all_flushes_asked_before_a_sync_share_it() {
  Bench bench;
  for (uint64_t id = 1; id <= 32; ++id) {
    bench.queue.data_written();
    bench.flush(id);
  }
  check_equal(bench.run(), "S");
  check_equal(bench.finished.size(), 32u);
  check_equal(bench.queue.counters().flushes_asked, 32u);
  check_equal(bench.queue.counters().syncs_issued, 1u);
}

void a_flush_never_joins_a_running_sync() {
  Bench bench;
  bench.flush(1);
  check_equal(bench.begin(), "S");
  bench.flush(2);
  bench.flush(3);
  check_equal(bench.queue.next(bench.now_ms).kind == Action::Kind::kIdle, true, "one action at a time");
  bench.end();
  check_equal(bench.over(), "1");
  check_equal(bench.step(), "S");
  check_equal(bench.over(), "2 3");
}

void a_flush_covers_what_is_queued_at_its_call_and_no_more() {
  Bench bench;
  bench.put(0);
  bench.flush(1);
  check_equal(bench.step(), "W{0}");
  check_equal(bench.put(100), 2u);
  check_equal(bench.run(), "S");
  check_equal(bench.over(), "1");
  check_equal(bench.queue.queued_nodes(), 1u);
  check_equal(bench.queue.durable_section(), 1u);
}

void a_later_flush_shares_the_sections_of_an_earlier_one() {
  Bench bench;
  bench.put(0);
  bench.put(100, 2);
  bench.flush(1);
  bench.step();
  bench.put(200);
  bench.flush(2);
  check_equal(bench.run(), "S W{100,200} S");
  check_equal(bench.over(), "1 2");
}

void a_flush_of_data_rides_on_the_sync_between_sections() {
  Bench bench;
  bench.put(0);
  bench.put(100, 2);
  bench.flush(1);
  bench.step();
  check_equal(bench.step(), "S");
  bench.put(200, 3);
  check_equal(bench.begin(), "W{100}");
  bench.queue.data_written();
  bench.flush(2);
  bench.end();
  check_equal(bench.begin(), "S", "1 is over by it; 2 waits for its own section");
  bench.end();
  check_equal(bench.over(), "1");
  check_equal(bench.run(), "W{200} S");
  check_equal(bench.over(), "2");
}

void waiting_for_something_durable_costs_nothing() {
  Bench bench;
  const Section section = bench.put(0);
  bench.await_durable(1, section);
  bench.put(100, 2);
  check_equal(bench.run(), "W{0} S", "no further than asked");
  check_equal(bench.over(), "1");
  bench.await_durable(2, section);
  check_equal(bench.over(), "2");
  bench.await_durable(3, 0);
  check_equal(bench.over(), "3");
  check_equal(bench.step(), "-");
  bench.await_durable(4, UINT64_MAX);
  check_equal(bench.run(), "W{100} S", "there is nothing beyond the last node");
  check_equal(bench.over(), "4");
}

void waiting_for_a_section_is_served_by_a_running_sync() {
  Bench bench;
  const Section section = bench.put(0);
  bench.flush(1);
  bench.step();
  check_equal(bench.begin(), "S");
  bench.await_durable(2, section);
  bench.end();
  check_equal(bench.over(), "1 2");
  check_equal(bench.step(), "-");
}

void a_drain_makes_room_without_a_last_sync() {
  Bench bench;
  bench.put(0);
  bench.put(100, 2);
  bench.queue.drain();
  check_equal(bench.run(), "W{0} S W{100}");
  check_equal(bench.queue.queued_nodes(), 0u);
  check_equal(bench.queue.durable_section(), 1u);
  bench.put(200);
  check_equal(bench.step(), "-", "what came later is not part of it");
  bench.flush(1);
  check_equal(bench.run(), "S W{200} S");
}

void what_takes_no_sync_is_written_ahead_of_a_flush() {
  Bench bench;
  check(!bench.queue.write_ahead(), "there is nothing");
  bench.put(0);
  bench.put(100, 2);
  check(bench.queue.write_ahead(), "the first section");
  check_equal(bench.run(), "W{0}");
  check(!bench.queue.write_ahead(), "the second one needs a sync");
  check_equal(bench.step(), "-");
  bench.flush(1);
  check_equal(bench.run(), "S W{100} S");
  // What refers to data has to wait for its sync.
  bench.queue.data_written();
  const Section behind = bench.queue.section_after_data();
  bench.put(200, behind);
  check(!bench.queue.write_ahead(), "it comes behind data");
  check_equal(bench.step(), "-");
  bench.flush(2);
  check_equal(bench.run(), "S W{200} S");
}

void nodes_that_waited_too_long_are_made_durable_unasked() {
  Bench bench;
  check(!bench.queue.deadline_ms(), "nothing waits");
  bench.now_ms = 2000;
  bench.put(0);
  bench.now_ms = 3000;
  bench.put(100, 2);
  bench.put(0);
  check_equal(bench.queue.deadline_ms().value(), 2000 + kIdleLimitMs, "the age of the oldest");
  bench.now_ms = 2000 + kIdleLimitMs - 1;
  check_equal(bench.step(), "-");
  bench.now_ms += 1;
  check_equal(bench.run(), "W{0} S W{100} S");
  check_equal(bench.queue.durable_section(), 2u);
  check(!bench.queue.deadline_ms(), "nothing waits any more");
}

void nodes_that_are_written_but_not_durable_keep_their_age() {
  Bench bench;
  bench.put(0);
  bench.queue.drain();
  check_equal(bench.run(), "W{0}");
  check_equal(bench.queue.deadline_ms().value(), 1000 + kIdleLimitMs);
  bench.now_ms += kIdleLimitMs;
  check_equal(bench.run(), "S");
  check_equal(bench.queue.durable_section(), 1u);
}

void a_limit_of_zero_lets_nodes_wait_for_ever() {
  RequestQueue queue(SyncPolicy::kOnFlush, 1, 0);
  const uint8_t byte = 1;
  queue.enqueue(0, &byte, 1, 0, 0);
  check(!queue.deadline_ms(), "no deadline");
  check(queue.next(UINT64_MAX).kind == Action::Kind::kIdle, "idle");
}

// ---- The other policies ----

void without_a_queue_every_node_is_written_and_synced_by_itself() {
  Bench bench(SyncPolicy::kEveryWrite);
  check_equal(bench.put(0), 1u);
  check_equal(bench.put(0), 2u, "nothing folds");
  check_equal(bench.put(16), 3u, "nothing shares a section");
  check(!bench.queue.deadline_ms(), "nothing waits");
  check_equal(bench.run(), "W{0} S W{0} S W{16} S", "unasked");
  check_equal(bench.queue.durable_section(), 3u);
  bench.await_durable(1, 3);
  check_equal(bench.over(), "1");
  check_equal(bench.step(), "-");
}

void without_a_queue_every_flush_has_a_sync_of_its_own() {
  Bench bench(SyncPolicy::kEveryWrite);
  bench.put(0);
  bench.flush(1);
  bench.flush(2);
  bench.put(100);
  check_equal(bench.step(), "W{0}");
  check_equal(bench.step(), "S");
  check_equal(bench.over(), "", "this one was the node's");
  check_equal(bench.step(), "S");
  check_equal(bench.over(), "1");
  check_equal(bench.step(), "S");
  check_equal(bench.over(), "2");
  check_equal(bench.run(), "W{100} S");
  check_equal(bench.queue.counters().syncs_issued, 4u);
}

void without_a_queue_data_is_durable_before_the_node_behind_it() {
  Bench bench(SyncPolicy::kEveryWrite);
  bench.queue.data_written();
  bench.put(0, bench.queue.section_after_data());
  check_equal(bench.run(), "S W{0} S");
}

void without_syncs_the_order_of_writes_stays() {
  Bench bench(SyncPolicy::kNever);
  bench.put(0);
  bench.queue.data_written();
  bench.put(100, 2);
  bench.put(200, bench.queue.section_after_data());
  bench.flush(1);
  bench.await_durable(2, 1);
  check_equal(bench.step(), "W{0,200}");
  check_equal(bench.over(), "2", "written is as good as durable");
  check_equal(bench.queue.durable_section(), 1u);
  check_equal(bench.run(), "W{100}");
  check_equal(bench.over(), "1");
  bench.queue.data_written();
  bench.flush(3);
  check_equal(bench.over(), "3", "nothing to write");
  check_equal(bench.queue.counters().syncs_issued, 0u);
}

void without_syncs_idle_nodes_are_written_as_well() {
  Bench bench(SyncPolicy::kNever);
  bench.put(0);
  bench.now_ms += kIdleLimitMs;
  check_equal(bench.run(), "W{0}");
  check(!bench.queue.deadline_ms(), "nothing waits");
}

// ---- Failures ----

void a_full_disk_fails_whoever_waits_and_is_tried_again_when_asked() {
  for (const int error : {ENOSPC, EDQUOT}) {
    Bench bench;
    bench.put(0, 0, 'a');
    bench.put(100, 2);
    bench.flush(1);
    bench.await_durable(2, 1);
    check_equal(bench.step(error), "W{0}");
    check_equal(bench.over(), "1:" + std::to_string(error) + " 2:" + std::to_string(error));
    check_equal(bench.queue.poisoned(), 0);
    check_equal(bench.queue.stalled(), error);
    check(!bench.queue.deadline_ms(), "not by the clock");
    bench.now_ms += 10 * kIdleLimitMs;
    check_equal(bench.step(), "-", "not unasked");
    check_equal(bench.seen(0, 4), "aaaa", "reads still see it");

    check_equal(bench.put(0, 0, 'b'), 2u, "sealed stays sealed");
    bench.queue.data_written();
    check_equal(bench.queue.section_after_data(), 2u, "the sync in front of 2 is still to come");
    bench.flush(3);
    check_equal(bench.step(error), "W{0}", "first what failed, and it may fail again");
    check_equal(bench.over(), "3:" + std::to_string(error));
    bench.queue.drain();
    check_equal(bench.run(), "W{0} S W{0,100} S", "the last sync is for their age");
    bench.flush(4);
    check_equal(bench.run(), "S");
    check_equal(bench.over(), "4");
  }
}

void a_full_disk_does_not_keep_an_earlier_section_from_becoming_durable() {
  Bench bench;
  const Section first = bench.put(0);
  bench.queue.drain();
  bench.run();
  bench.put(100);
  bench.queue.drain();
  check_equal(bench.step(), "S");
  check_equal(bench.step(ENOSPC), "W{100}");
  bench.queue.data_written();
  const Section behind = bench.put(200, bench.queue.section_after_data());
  bench.await_durable(1, first);
  check_equal(bench.over(), "1");
  bench.flush(2);
  check_equal(bench.run(), "W{100} S W{200} S");
  check_equal(behind, 3u);
  check_equal(bench.over(), "2");
}

void a_failed_write_poisons_the_queue() {
  Bench bench;
  bench.put(0, 0, 'a');
  bench.put(100, 2, 'b');
  bench.flush(1);
  bench.await_durable(2, 2);
  check_equal(bench.step(EIO), "W{0}");
  check_equal(bench.over(), "1:5 2:5");
  check_equal(bench.queue.poisoned(), EIO);
  bench.flush(3);
  bench.await_durable(4, 1);
  check_equal(bench.over(), "3:5 4:5");
  bench.queue.drain();
  bench.now_ms += 10 * kIdleLimitMs;
  check_equal(bench.step(), "-", "for ever");
  check(!bench.queue.deadline_ms(), "for ever");
  check_equal(bench.seen(0, 2) + bench.seen(100, 2), "aabb", "reads still see all of it");
}

void a_failed_sync_is_never_tried_again() {
  for (const int error : {EIO, ENOSPC, EDQUOT}) {
    Bench bench;
    bench.put(0);
    bench.put(100, 2);
    bench.flush(1);
    bench.await_durable(2, 1);
    bench.step();
    check_equal(bench.begin(), "S");
    bench.flush(3);
    bench.end(error);
    const std::string suffix = ":" + std::to_string(error);
    check_equal(bench.over(), "1" + suffix + " 3" + suffix + " 2" + suffix, "those it served and those behind");
    check_equal(bench.queue.poisoned(), error);
    check_equal(bench.queue.durable_section(), 0u);
    bench.flush(4);
    check_equal(bench.over(), "4" + suffix);
    check_equal(bench.step(), "-");
    check_equal(bench.queue.queued_nodes(), 1u, "what depends on it is never written");
  }
}

}  // namespace

int main() {
  return run_all({
      {"barriers of independent contexts cost one sync", barriers_of_independent_contexts_cost_one_sync},
      {"data counts as durable only by a sync that starts later",
       data_counts_as_durable_only_by_a_sync_that_starts_later},
      {"an empty section costs a sync only for data that needs it",
       an_empty_section_costs_a_sync_only_for_data_that_needs_it},
      {"data needs no sync in front of a section that does not depend on it",
       data_needs_no_sync_in_front_of_a_section_that_does_not_depend_on_it},
      {"a sync that covered the data already is not made again",
       a_sync_that_covered_the_data_already_is_not_made_again},
      {"an empty section is over when the sync behind it starts",
       an_empty_section_is_over_when_the_sync_behind_it_starts},
      {"while a sync runs the section behind it takes nodes", while_a_sync_runs_the_section_behind_it_takes_nodes},
      {"a lone flush does not wait", a_lone_flush_does_not_wait},
      {"nothing is done unasked", nothing_is_done_unasked},
      {"all flushes asked before a sync share it", all_flushes_asked_before_a_sync_share_it},
      {"a flush never joins a running sync", a_flush_never_joins_a_running_sync},
      {"a flush covers what is queued at its call and no more", a_flush_covers_what_is_queued_at_its_call_and_no_more},
      {"a later flush shares the sections of an earlier one", a_later_flush_shares_the_sections_of_an_earlier_one},
      {"a flush of data rides on the sync between sections", a_flush_of_data_rides_on_the_sync_between_sections},
      {"waiting for something durable costs nothing", waiting_for_something_durable_costs_nothing},
      {"waiting for a section is served by a running sync", waiting_for_a_section_is_served_by_a_running_sync},
      {"what takes no sync is written ahead of a flush", what_takes_no_sync_is_written_ahead_of_a_flush},
      {"a drain makes room without a last sync", a_drain_makes_room_without_a_last_sync},
      {"nodes that waited too long are made durable unasked", nodes_that_waited_too_long_are_made_durable_unasked},
      {"nodes that are written but not durable keep their age", nodes_that_are_written_but_not_durable_keep_their_age},
      {"a limit of zero lets nodes wait for ever", a_limit_of_zero_lets_nodes_wait_for_ever},
      {"without a queue every node is written and synced by itself",
       without_a_queue_every_node_is_written_and_synced_by_itself},
      {"without a queue every flush has a sync of its own", without_a_queue_every_flush_has_a_sync_of_its_own},
      {"without a queue data is durable before the node behind it",
       without_a_queue_data_is_durable_before_the_node_behind_it},
      {"without syncs the order of writes stays", without_syncs_the_order_of_writes_stays},
      {"without syncs idle nodes are written as well", without_syncs_idle_nodes_are_written_as_well},
      {"a full disk fails whoever waits and is tried again when asked",
       a_full_disk_fails_whoever_waits_and_is_tried_again_when_asked},
      {"a full disk does not keep an earlier section from becoming durable",
       a_full_disk_does_not_keep_an_earlier_section_from_becoming_durable},
      {"a failed write poisons the queue", a_failed_write_poisons_the_queue},
      {"a failed sync is never tried again", a_failed_sync_is_never_tried_again},
  });
}
