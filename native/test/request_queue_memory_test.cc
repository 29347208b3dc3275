// Every allocation of the queue fails in turn: each call does all that it is to do, or nothing at all.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "bench.h"
#include "failing_new.h"

namespace {

// The number of the allocation that fails, counted down; 0: none.
int countdown = 0;
int failures = 0;

}  // namespace

bool failing_new::is_to_fail() {
  if (countdown == 0 || --countdown > 0) return false;
  ++failures;
  return true;
}

namespace {

using namespace block_queue_test;

// All that can be seen of a queue, and of those who wait, without changing it.
std::string state_of(const Bench& bench) {
  const RequestQueue& queue = bench.queue;
  const auto& counters = queue.counters();
  std::string text = bench.seen(0, 256);
  const auto deadline = queue.deadline_ms();
  for (const uint64_t number :
       {queue.highest_section(), queue.durable_section(), queue.section_after_data(), queue.queued_bytes(),
        uint64_t{queue.queued_nodes()}, uint64_t{queue.flushes_waiting()}, uint64_t{bench.finished.size()},
        queue.pending_section(0, 256), deadline ? *deadline : 0, static_cast<uint64_t>(queue.poisoned()),
        static_cast<uint64_t>(queue.stalled()), counters.nodes_queued, counters.nodes_coalesced, counters.flushes_asked,
        counters.syncs_issued, counters.queued_bytes_peak, counters.queued_nodes_peak}) {
    text += ' ' + std::to_string(number);
  }
  return text;
}

// One call on a queue; whether it was done. Calls that need no memory answer true.
using Call = std::function<bool(Bench*)>;

template <typename Ask>
bool waited(const Ask& ask) {
  try {
    ask();
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

uint8_t bytes[64];

Call put(uint64_t offset, Section earliest, size_t length = kUnit) {
  return [=](Bench* bench) { return bench->queue.enqueue(offset, bytes, length, earliest, bench->now_ms) != 0; };
}

Call flush(uint64_t id) {
  return [=](Bench* bench) { return waited([&] { bench->flush(id); }); };
}

Call await_durable(uint64_t id, Section section) {
  return [=](Bench* bench) { return waited([&] { bench->await_durable(id, section); }); };
}

// What the worker does; it never needs memory: if it asked for some, that would be one of the failures, and the end.
Call begin(Action::Kind kind) {
  return [=](Bench* bench) {
    bench->action = bench->queue.next(bench->now_ms);
    return bench->action.kind == kind;
  };
}

Call end(int error = 0) {
  return [=](Bench* bench) {
    bench->end(error);
    return true;
  };
}

constexpr auto kWrite = Action::Kind::kWrite;
constexpr auto kSync = Action::Kind::kSync;

// Nodes in several sections, versions of one another, of several lengths; folded; queued while a section is being
// written and while a sync runs; waiters of both kinds, for what is and for what is not durable.
std::vector<Call> calls(SyncPolicy policy) {
  if (policy == SyncPolicy::kNever) {
    return {put(0, 0),           put(32, 2),    put(0, 2), flush(1),      await_durable(2, 1), begin(kWrite),
            put(64, 0),          end(),         flush(3),  begin(kWrite), put(64, 3, 32),      end(),
            await_durable(4, 9), begin(kWrite), end(),     flush(5),      await_durable(6, 1)};
  }
  if (policy == SyncPolicy::kEveryWrite) {
    return {put(0, 0),    put(0, 0),           flush(1), begin(kWrite), put(32, 0), end(),
            begin(kSync), await_durable(2, 9), end(),    begin(kWrite), end(),      begin(kSync),
            end(),        begin(kSync),        end(),    begin(kWrite), end(),      begin(kSync),
            end(),        await_durable(3, 1)};
  }
  return {put(0, 0),
          put(32, 2),
          put(0, 2),
          put(0, 2, 8),
          put(64, 0, 48),
          await_durable(1, 9),
          await_durable(2, 1),
          flush(3),
          begin(kWrite),
          put(128, 0),
          put(0, 0),
          end(),
          begin(kSync),
          flush(4),
          put(160, 9),
          end(),
          begin(kWrite),
          end(ENOSPC),
          flush(5),
          begin(kWrite),
          end(),
          begin(kSync),
          end(),
          begin(kWrite),
          flush(6),
          end(),
          begin(kSync),
          end(EIO),
          flush(7),
          await_durable(8, 1)};
}

// What the queue is like after each of the calls.
std::vector<std::string> states_after(const std::vector<Call>& all, SyncPolicy policy) {
  Bench bench(policy);
  std::vector<std::string> states;
  for (const Call& call : all) {
    check(call(&bench), "with memory the call is done");
    states.push_back(state_of(bench));
  }
  states.push_back(bench.over());
  return states;
}

// Make the calls in turn; the n-th allocation fails, and that call is made once more. Answers whether one failed.
bool run_with_failure(const std::vector<Call>& all, SyncPolicy policy, int n, const std::vector<std::string>& states) {
  Bench bench(policy);
  failures = 0;
  int left = n;
  for (size_t i = 0; i < all.size(); ++i) {
    countdown = left;
    bool is_done = all[i](&bench);
    left = countdown;
    countdown = 0;
    if (!is_done) {
      check_equal(failures, 1, "a call is not done for lack of memory only");
      Bench fresh(policy);
      check_equal(state_of(bench), i == 0 ? state_of(fresh) : states[i - 1], "without memory nothing has changed");
      is_done = all[i](&bench);
    }
    check(is_done, "with memory the call is done");
    check_equal(state_of(bench), states[i], "as if nothing had happened");
  }
  check_equal(bench.over(), states.back(), "everybody is told the same");
  return failures > 0;
}

void each_allocation_fails(SyncPolicy policy) {
  const std::vector<Call> all = calls(policy);
  const std::vector<std::string> states = states_after(all, policy);
  int n = 1;
  while (run_with_failure(all, policy, n, states)) ++n;
  std::printf("  %d allocations failed\n", n - 1);
  check(n > 10, "there were allocations");
}

void a_call_without_memory_changes_nothing() { each_allocation_fails(SyncPolicy::kOnFlush); }
void nor_does_it_without_syncs() { each_allocation_fails(SyncPolicy::kNever); }
void nor_does_it_without_a_queue() { each_allocation_fails(SyncPolicy::kEveryWrite); }

void a_read_without_memory_changes_nothing() {
  Bench bench;
  bench.put(0);
  bench.put(32);
  const std::string before = state_of(bench);
  for (int n = 1;; ++n) {
    failures = 0;
    countdown = n;
    const bool is_done = waited([&] { bench.queue.collect_overlay(0, 64); });
    countdown = 0;
    check_equal(is_done, failures == 0);
    check_equal(state_of(bench), before);
    if (is_done) return check(n > 3, "there were allocations");
  }
}

void a_queue_that_was_given_up_tells_everybody_and_writes_nothing() {
  Bench bench;
  bench.put(0);
  bench.put(32, 2);
  bench.flush(1);
  bench.await_durable(2, 1);
  check_equal(bench.begin(), "W{0}");
  countdown = 1;
  check_equal(bench.queue.enqueue(64, bytes, kUnit, 0, bench.now_ms), 0u);
  countdown = 0;
  bench.queue.give_up(ENOMEM, &bench.finished);
  check_equal(bench.over(), "1:" + std::to_string(ENOMEM) + " 2:" + std::to_string(ENOMEM));
  bench.end();
  check_equal(bench.over(), "", "what was under way tells nobody any more");
  check_equal(bench.step(), "-", "nothing more is written");
  bench.flush(3);
  check_equal(bench.over(), "3:" + std::to_string(ENOMEM));
  check_equal(bench.seen(32, 4), "xxxx", "reads still see what was queued");
}

void a_waiter_gets_the_memory_of_one_that_is_over() {
  Bench bench;
  bench.put(0);
  bench.flush(1);
  check_equal(bench.run(), "W{0} S");
  bench.queue.recycle(&bench.finished);
  failures = 0;
  countdown = 1;
  bench.flush(2);
  countdown = 0;
  check_equal(failures, 0, "no memory was asked for");
  check_equal(bench.run(), "S");
  check_equal(bench.over(), "2");
}

void a_sync_that_fails_later_keeps_the_first_failure() {
  Bench bench;
  bench.put(0);
  bench.flush(1);
  bench.step();
  check_equal(bench.begin(), "S");
  bench.queue.give_up(ENOMEM, &bench.finished);
  bench.end(EIO);
  check_equal(bench.queue.poisoned(), ENOMEM);
  check_equal(bench.over(), "1:" + std::to_string(ENOMEM));
}

}  // namespace

int main() {
  return run_all({
      {"a call without memory changes nothing", a_call_without_memory_changes_nothing},
      {"nor does it without syncs", nor_does_it_without_syncs},
      {"nor does it without a queue", nor_does_it_without_a_queue},
      {"a read without memory changes nothing", a_read_without_memory_changes_nothing},
      {"a queue that was given up tells everybody and writes nothing",
       a_queue_that_was_given_up_tells_everybody_and_writes_nothing},
      {"a waiter gets the memory of one that is over", a_waiter_gets_the_memory_of_one_that_is_over},
      {"a sync that fails later keeps the first failure", a_sync_that_fails_later_keeps_the_first_failure},
  });
}
