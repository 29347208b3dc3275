// The law of ordered writes, checked over every interleaving of a few contexts with the steps of the worker.
//
// Two blocks are shared by all contexts, one of refcounts and one of links, each with a counter for every context.
// Allocating raises a refcount and then links; freeing unlinks and then raises a counter of frees. What a counter says
// must not reach the disk before what it depends on is durable. Nothing here looks at section numbers: the model knows
// only what was written, which syncs started when, and what each context was promised.
#include <array>
#include <cerrno>
#include <cstdio>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "../request_queue.h"
#include "check.h"
#include "chooser.h"
#include "request_queue_inspector.h"

namespace {

using block_queue::Action;
using block_queue::RequestQueue;
using block_queue::RequestQueueInspector;
using block_queue::Section;
using block_queue::SyncPolicy;
using block_queue::Waiter;
using block_queue::Waiters;
using block_queue_test::check;
using block_queue_test::Chooser;

constexpr size_t kMostContexts = 4;
constexpr uint64_t kRefcountsAt = 0;
constexpr uint64_t kLinksAt = 100;

using Counts = std::array<uint8_t, kMostContexts>;

// One state of the file, or of what is known to be durable of it.
struct Disk {
  Counts allocated{};  // in the block of refcounts: must be durable before `linked`
  Counts freed{};      // in the block of refcounts: only after `unlinked` is durable
  Counts linked{};     // in the block of links
  Counts unlinked{};   // in the block of links
  Counts data{};       // written beside the queue: must be durable before `linked`
};

bool reaches(const Counts& have, const Counts& need) {
  for (size_t i = 0; i < kMostContexts; ++i) {
    if (have[i] < need[i]) return false;
  }
  return true;
}

bool reaches(const Disk& have, const Disk& need) {
  return reaches(have.allocated, need.allocated) && reaches(have.freed, need.freed) &&
         reaches(have.linked, need.linked) && reaches(have.unlinked, need.unlinked) && reaches(have.data, need.data);
}

// The steps of one context: 'd' its data is written, 'a' allocate and link, 'l' link what is allocated and durable
// since long, 'x' unlink and free, 'f' flush, 'w' wait for its own nodes only, 'r' its data is written, and is
// relied on when the section in front of section_after_data() is durable (lib/qcow2/reservation.ts).
struct Scenario {
  const char* name;
  SyncPolicy policy;
  std::vector<std::string> scripts;
  // Whether one action may fail, with a full disk or for good.
  bool with_failure;
};

class World {
 public:
  World(const Scenario& scenario, Chooser* chooser)
      : scenario_(scenario), chooser_(chooser), queue_(scenario.policy, 1, 0), steps_(scenario.scripts.size()) {
    may_fail_ = scenario.with_failure;
  }

  // One schedule. False: it held a step that does nothing, so that another schedule stands for it.
  bool run() {
    for (;;) {
      const std::vector<size_t> ready = ready_contexts();
      const size_t chosen = chooser_->choose(ready.size() + 1);
      if (chosen < ready.size()) {
        step_context(ready[chosen]);
      } else if (!step_worker()) {
        if (!ready.empty()) return false;
        for (size_t i = 0; i < steps_.size(); ++i) check(!waits_[i], "nobody waits while the worker is idle");
        return true;
      }
    }
  }

  uint64_t syncs() const { return queue_.counters().syncs_issued; }

  // Follow the chooser's path to its end. Returns how many ways go on from there: 0, and `*is_over` says whether all
  // contexts have come to their end, or another schedule stands for this one.
  size_t run_to_end_of_path(bool* is_over) {
    for (;;) {
      const std::vector<size_t> ready = ready_contexts();
      if (chooser_->at_end()) return ready.size() + 1;
      const size_t chosen = chooser_->follow_next();
      if (chosen < ready.size()) {
        step_context(ready[chosen]);
      } else if (!step_worker()) {
        *is_over = ready.empty();
        for (size_t i = 0; *is_over && i < steps_.size(); ++i)
          check(!waits_[i], "nobody waits while the worker is idle");
        return 0;
      }
    }
  }

  // All that decides what may happen from here on, and what is checked.
  std::string describe() const {
    std::string all;
    const auto name = [this](uint64_t id) { return static_cast<char>('A' + promises_.at(id).context); };
    RequestQueueInspector::describe(queue_, name, &all);
    for (size_t i = 0; i < steps_.size(); ++i) {
      all += static_cast<char>('0' + steps_[i]);
      all += waits_[i] ? 'w' : '-';
      all += std::to_string(RequestQueueInspector::distance(queue_, highest_[i])) + ' ';
    }
    for (const auto& [id, promise] : promises_) {
      all += static_cast<char>('A' + promise.context);
      put(promise.covers, &all);
    }
    for (const Reliance& one : relied_on_) {
      all += std::to_string(RequestQueueInspector::distance(queue_, one.section));
      put(one.data, &all);
    }
    put(reserved_, &all);
    for (const Disk& disk : {now_, written_, started_, durable_}) put(disk, &all);
    return all;
  }

 private:
  static void put(const Counts& counts, std::string* into) { into->append(counts.begin(), counts.end()); }
  static void put(const Disk& disk, std::string* into) {
    for (const Counts& counts : {disk.allocated, disk.freed, disk.linked, disk.unlinked, disk.data}) put(counts, into);
  }

  std::vector<size_t> ready_contexts() const {
    std::vector<size_t> ready;
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (!waits_[i] && steps_[i] < scenario_.scripts[i].size()) ready.push_back(i);
    }
    return ready;
  }

  struct Promise {
    size_t context;
    Disk covers;
  };

  // A chain of dependent writes, as lib/queue/context.ts.
  struct Chain {
    Section position = 0;
    Section highest = 0;
    void barrier() { position = std::max(position, highest + 1); }
    void placed(Section section) { highest = std::max(highest, section); }
  };

  // Data that something relies on once a section is durable.
  struct Reliance {
    Section section;
    Counts data;
  };

  void check_reliances() const {
    for (const Reliance& one : relied_on_) {
      if (queue_.durable_section() < one.section) continue;
      check(reaches(reached().data, one.data), "a section in front of a later sync is durable with the data before it");
    }
  }

  void step_context(size_t i) {
    const char step = scenario_.scripts[i][steps_[i]];
    Chain chain;
    switch (step) {
      case 'd':
        ++now_.data[i];
        written_.data[i] = now_.data[i];
        queue_.data_written();
        break;
      case 'r':
        ++now_.data[i];
        written_.data[i] = now_.data[i];
        queue_.data_written();
        relied_on_.push_back({queue_.section_after_data() - 1, written_.data});
        break;
      case 'a':
        ++now_.allocated[i];
        chain.placed(put_refcounts(chain.position));
        chain.barrier();
        chain.position = std::max(chain.position, queue_.section_after_data());
        ++now_.linked[i];
        chain.placed(put_links(chain.position));
        highest_[i] = chain.highest;
        break;
      case 'l':
        chain.position = queue_.section_after_data();
        ++now_.linked[i];
        ++reserved_[i];
        chain.placed(put_links(chain.position));
        highest_[i] = chain.highest;
        break;
      case 'x':
        ++now_.unlinked[i];
        chain.placed(put_links(chain.position));
        chain.barrier();
        ++now_.freed[i];
        chain.placed(put_refcounts(chain.position));
        highest_[i] = chain.highest;
        break;
      case 'f':
      case 'w':
        wait(i, step == 'f');
        return;
      default:
        check(false, "a step that exists");
    }
    check_reliances();
    ++steps_[i];
  }

  void wait(size_t i, bool flush) {
    Promise promise{i, now_};
    if (!flush) {
      // Its own last nodes hold at least its own counters.
      promise.covers = Disk{};
      promise.covers.allocated[i] = now_.allocated[i];
      promise.covers.freed[i] = now_.freed[i];
      promise.covers.linked[i] = now_.linked[i];
      promise.covers.unlinked[i] = now_.unlinked[i];
    } else if (scenario_.policy == SyncPolicy::kNever) {
      promise.covers.data = Counts{};
    }
    const uint64_t id = ++last_id_;
    promises_.emplace(id, promise);
    waits_[i] = true;
    Waiters finished;
    if (flush) {
      queue_.flush(id, &finished);
    } else {
      queue_.await_durable(id, highest_[i], &finished);
    }
    settle(finished);
  }

  Section put_refcounts(Section earliest) {
    std::array<uint8_t, 2 * kMostContexts> bytes;
    for (size_t i = 0; i < kMostContexts; ++i) {
      bytes[2 * i] = now_.allocated[i];
      bytes[2 * i + 1] = now_.freed[i];
    }
    return queue_.enqueue(kRefcountsAt, bytes.data(), bytes.size(), earliest, 0);
  }

  Section put_links(Section earliest) {
    std::array<uint8_t, 2 * kMostContexts> bytes;
    for (size_t i = 0; i < kMostContexts; ++i) {
      bytes[2 * i] = now_.linked[i];
      bytes[2 * i + 1] = now_.unlinked[i];
    }
    return queue_.enqueue(kLinksAt, bytes.data(), bytes.size(), earliest, 0);
  }

  // Begin an action, or end the one that is out. False: there is nothing to do.
  bool step_worker() {
    if (action_.kind != Action::Kind::kIdle) {
      end_action();
      return true;
    }
    action_ = queue_.next(0);
    if (action_.kind == Action::Kind::kIdle) return false;
    check(!poisoned_, "nothing is tried after a failure that nobody understands");
    begin_action();
    return true;
  }

  void begin_action() {
    started_ = written_;
    if (action_.kind == Action::Kind::kSync) return;
    for (const auto& [offset, node] : *action_.nodes) {
      for (size_t i = 0; i < kMostContexts; ++i) {
        const uint8_t first = node->bytes.data()[2 * i];
        const uint8_t second = node->bytes.data()[2 * i + 1];
        if (node->offset == kRefcountsAt) {
          check(first >= written_.allocated[i] && second >= written_.freed[i], "old bytes never follow newer ones");
          check(reached().unlinked[i] >= second, "a free waits for its unlink");
          started_.allocated[i] = first;
          started_.freed[i] = second;
        } else {
          check(first >= written_.linked[i] && second >= written_.unlinked[i], "old bytes never follow newer ones");
          check(reached().allocated[i] + reserved_[i] >= first, "a link waits for its refcount");
          check(reached().data[i] >= first, "a link waits for its data");
          started_.linked[i] = first;
          started_.unlinked[i] = second;
        }
      }
    }
  }

  // What the nodes of a later section may rely on.
  const Disk& reached() const { return scenario_.policy == SyncPolicy::kNever ? written_ : durable_; }

  void end_action() {
    const bool is_write = action_.kind == Action::Kind::kWrite;
    int error = 0;
    if (may_fail_) {
      const std::vector<int> errors = is_write ? std::vector<int>{0, ENOSPC, EIO} : std::vector<int>{0, EIO};
      error = errors[chooser_->choose(errors.size())];
      if (error != 0) may_fail_ = false;
      if (error == EIO) poisoned_ = true;
    }
    action_ = {};
    Waiters finished;
    if (is_write) {
      if (error == 0) {
        const Counts data = written_.data;
        written_ = started_;
        written_.data = data;
      }
      queue_.written(error, &finished);
    } else {
      if (error == 0) durable_ = started_;
      queue_.synced(error, &finished);
    }
    if (error != 0) check(promises_.size() == finished.size(), "a failure is told to everybody who waits");
    check_reliances();
    settle(finished);
  }

  void settle(const Waiters& finished) {
    for (const Waiter& one : finished) {
      const auto entry = promises_.find(one.id);
      check(entry != promises_.end(), "a waiter finishes once");
      const Promise promise = entry->second;
      promises_.erase(entry);
      waits_[promise.context] = false;
      // A full disk: the context asks again, with the same step.
      if (one.error == 0 || one.error == EIO) ++steps_[promise.context];
      check((one.error == EIO) == poisoned_, "after a failure that nobody understands no flush succeeds");
      if (one.error == 0) check(reaches(reached(), promise.covers), "what a flush covers is durable when it finishes");
    }
  }

  const Scenario& scenario_;
  Chooser* const chooser_;
  RequestQueue queue_;
  std::vector<size_t> steps_;
  std::array<bool, kMostContexts> waits_{};
  std::array<Section, kMostContexts> highest_{};
  std::vector<Reliance> relied_on_;
  std::map<uint64_t, Promise> promises_;
  uint64_t last_id_ = 0;
  bool may_fail_ = false;
  bool poisoned_ = false;
  Action action_;
  Counts reserved_{};  // links that need no refcount any more
  Disk now_;           // in memory
  Disk written_;       // by writes that completed
  Disk started_;       // sync: `written_` when it started; write: `written_` once it has completed
  Disk durable_;
};

uint64_t explore(const Scenario& scenario) {
  Chooser chooser;
  uint64_t schedules = 0;
  uint64_t fewest = UINT64_MAX;
  uint64_t most = 0;
  do {
    chooser.restart();
    World world(scenario, &chooser);
    if (!world.run()) continue;
    ++schedules;
    fewest = std::min(fewest, world.syncs());
    most = std::max(most, world.syncs());
  } while (chooser.advance());
  std::printf("%s: %llu schedules, %llu to %llu syncs\n", scenario.name, static_cast<unsigned long long>(schedules),
              static_cast<unsigned long long>(fewest), static_cast<unsigned long long>(most));
  std::fflush(stdout);
  return schedules;
}

// As `explore`, for scenarios whose schedules cannot be gone through one by one: what goes on from a state that has
// been reached before has been seen. Every state is reached, every step from it taken; schedules are counted, not run.
class MergedStates {
 public:
  explicit MergedStates(const Scenario& scenario) : scenario_(scenario) {
    check(!scenario.with_failure, "failures are chosen within a step");
  }

  double explore() {
    const double schedules = from({});
    std::printf("%s: %.4g schedules through %zu states\n", scenario_.name, schedules, schedules_from_.size());
    std::fflush(stdout);
    return schedules;
  }

 private:
  double from(const std::vector<size_t>& path) {
    Chooser chooser;
    chooser.follow(path);
    World world(scenario_, &chooser);
    bool is_over = false;
    const size_t ways = world.run_to_end_of_path(&is_over);
    if (ways == 0) return is_over ? 1 : 0;
    const std::string state = world.describe();
    const auto known = schedules_from_.find(state);
    if (known != schedules_from_.end()) return known->second;
    double schedules = 0;
    for (size_t way = 0; way < ways; ++way) {
      std::vector<size_t> next = path;
      next.push_back(way);
      schedules += from(next);
    }
    schedules_from_.emplace(state, schedules);
    return schedules;
  }

  const Scenario& scenario_;
  std::unordered_map<std::string, double> schedules_from_;
};

}  // namespace

// With the argument --long the largest scenarios as well: minutes.
int main(int argc, char** argv) {
  const SyncPolicy on_flush = SyncPolicy::kOnFlush;
  std::vector<Scenario> scenarios = {
      {"two allocations with a flush each", on_flush, {"daf", "daf"}, false},
      {"two allocations and one", on_flush, {"dafdaf", "daf"}, false},
      {"an allocation and two frees", on_flush, {"daf", "xfxf"}, false},
      {"data in space that is reserved", on_flush, {"dldlf", "dlf"}, false},
      {"data in space that is reserved, and an allocation", on_flush, {"dlf", "dlw", "x"}, false},
      {"waiting for one's own nodes", on_flush, {"daw", "xwf"}, false},
      {"room that is made ahead, and an allocation", on_flush, {"rf", "daf"}, false},
      {"room that is made ahead while others allocate and free", on_flush, {"r", "daf", "xw"}, false},
      {"room that is made ahead, twice, and one failure", on_flush, {"rrf", "daw"}, true},
      {"four contexts with a flush each", on_flush, {"df", "df", "df", "df"}, false},
      {"four contexts, three of them with nodes", on_flush, {"xf", "f", "df", "w"}, false},
      {"one failure", on_flush, {"daf", "xf"}, true},
      {"one failure among allocations", on_flush, {"daf", "daw"}, true},
      {"every write synced", SyncPolicy::kEveryWrite, {"daf", "xw"}, false},
      {"every write synced, in space that is reserved", SyncPolicy::kEveryWrite, {"dlf", "dlw"}, false},
      {"every write synced, one failure", SyncPolicy::kEveryWrite, {"daw", "f"}, true},
      {"never synced", SyncPolicy::kNever, {"daf", "xfxw"}, false},
      {"never synced, one failure", SyncPolicy::kNever, {"daf", "xf"}, true},
  };
  const bool is_long = argc > 1 && std::string(argv[1]) == "--long";
  if (is_long) {
    scenarios.push_back({"three contexts with three flushes each", on_flush, {"fff", "fff", "fff"}, false});
    scenarios.push_back({"four contexts with two flushes each", on_flush, {"ff", "ff", "ff", "ff"}, false});
    scenarios.push_back({"waiting for one's own nodes, twice", on_flush, {"dawdaw", "xwf"}, false});
    scenarios.push_back({"never synced, twice", SyncPolicy::kNever, {"dafdaf", "xfxw"}, false});
    scenarios.push_back({"never synced, one failure, twice", SyncPolicy::kNever, {"daf", "xfxf"}, true});
    scenarios.push_back({"every write synced, one failure", SyncPolicy::kEveryWrite, {"daw", "xf"}, true});
    scenarios.push_back({"data in space that is reserved, and a free", on_flush, {"dlf", "dlw", "xw"}, false});
    scenarios.push_back({"two times two allocations with a flush each", on_flush, {"dafdaf", "dafdaf"}, false});
  }
  // Merging leaves nothing out: as many schedules as there are when they are gone through one by one.
  const Scenario both_ways = {"an allocation, a free and data", on_flush, {"daf", "xf", "dw"}, false};
  check(MergedStates(both_ways).explore() == static_cast<double>(explore(both_ways)), "both ways are one");
  std::vector<Scenario> merged = {
      {"four contexts that allocate, free, or write", on_flush, {"daf", "xf", "df", "dw"}, false},
  };
  if (is_long) {
    merged.push_back({"four contexts that allocate", on_flush, {"daf", "daf", "daf", "daw"}, false});
    merged.push_back(
        {"four contexts with three flushes each", on_flush, {"dfdfdf", "dfdfdf", "dfdfdf", "dfdfdf"}, false});
    merged.push_back(
        {"three that allocate, three flushes each", on_flush, {"dafdafdaf", "dafdafdaf", "xfxfxf"}, false});
  }
  for (const Scenario& scenario : merged) MergedStates(scenario).explore();
  uint64_t schedules = 0;
  for (const Scenario& scenario : scenarios) schedules += explore(scenario);
  check(schedules >= 200000, "as many schedules as are promised");
  std::printf("%llu schedules\n", static_cast<unsigned long long>(schedules));
  return 0;
}
