// The rules of WriteGate: who waits for whom.
#include "../write_gate.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "check.h"

namespace {

using block_queue::WriteGate;
using block_queue::WriteSpan;
using block_queue_test::check;
using block_queue_test::check_equal;

WriteSpan shared(uint64_t begin, uint64_t end) { return {begin, end, false}; }
WriteSpan exclusive(uint64_t begin, uint64_t end) { return {begin, end, true}; }

std::string text(const std::vector<uint64_t>& ids) {
  std::string result;
  for (const uint64_t id : ids) result += (result.empty() ? "" : " ") + std::to_string(id);
  return result;
}

std::vector<uint64_t> leave(WriteGate* gate, uint64_t id) {
  std::vector<uint64_t> admitted;
  gate->leave(id, [&](uint64_t one) { admitted.push_back(one); });
  return admitted;
}

void whole_units_never_wait_for_one_another() {
  WriteGate gate;
  check(gate.enter(1, shared(0, 8)), "the first begins");
  check(gate.enter(2, shared(0, 8)), "the second begins though they overlap");
  check_equal(text(leave(&gate, 1)), "");
  check_equal(text(leave(&gate, 2)), "");
  check(gate.empty(), "nobody is left");
}

void a_part_of_a_unit_waits_for_the_unit() {
  WriteGate gate;
  check(gate.enter(1, shared(0, 8)), "the whole begins");
  check(!gate.enter(2, exclusive(4, 8)), "the part waits");
  check(gate.enter(3, exclusive(8, 12)), "its neighbour does not");
  check_equal(text(leave(&gate, 3)), "");
  check_equal(text(leave(&gate, 1)), "2");
}

void a_unit_waits_for_its_part() {
  WriteGate gate;
  check(gate.enter(1, exclusive(0, 4)), "the part begins");
  check(!gate.enter(2, shared(0, 8)), "the whole waits");
  check(!gate.enter(3, exclusive(0, 4)), "another part waits");
  check_equal(text(leave(&gate, 1)), "2");
  check_equal(text(leave(&gate, 2)), "3");
}

void nobody_is_overtaken_by_what_he_would_wait_for() {
  WriteGate gate;
  check(gate.enter(1, shared(0, 4)), "begins");
  check(!gate.enter(2, exclusive(0, 8)), "waits for 1");
  check(!gate.enter(3, shared(4, 8)), "could begin, but 2 would have to wait for it as well");
  check(gate.enter(4, shared(8, 12)), "has nothing to do with them");
  check_equal(text(leave(&gate, 1)), "2");
  check_equal(text(leave(&gate, 2)), "3");
}

void several_are_let_in_at_once_in_their_order() {
  WriteGate gate;
  check(gate.enter(1, exclusive(0, WriteSpan::kToTheEnd)), "begins");
  check(!gate.enter(2, shared(0, 4)), "waits");
  check(!gate.enter(3, exclusive(4, 8)), "waits");
  check(!gate.enter(4, shared(6, 8)), "waits");
  check_equal(text(leave(&gate, 1)), "2 3");
  check_equal(text(leave(&gate, 3)), "4");
}

// Whatever comes and goes: two that are under way at once are never in conflict, and all get in.
void those_under_way_are_never_in_conflict() {
  const unsigned seed = 20101;
  std::srand(seed);
  WriteGate gate;
  struct Change {
    uint64_t id;
    WriteSpan span;
  };
  std::vector<Change> waiting;
  std::vector<Change> under_way;
  uint64_t last_id = 0;
  uint64_t begun = 0;
  const auto begin = [&](const Change& change) {
    for (const Change& other : under_way) {
      const bool overlap = change.span.begin < other.span.end && other.span.begin < change.span.end;
      check(!overlap || !(change.span.exclusive || other.span.exclusive), "no conflict, seed " + std::to_string(seed));
    }
    under_way.push_back(change);
    ++begun;
  };
  for (int step = 0; step < 20000 || !under_way.empty(); ++step) {
    if (step < 20000 && under_way.size() + waiting.size() < 24 && std::rand() % 2 == 0) {
      const auto from = static_cast<uint64_t>(std::rand() % 32);
      const Change change{++last_id, {from, from + 1 + static_cast<uint64_t>(std::rand() % 6), std::rand() % 3 == 0}};
      if (gate.enter(change.id, change.span)) {
        begin(change);
      } else {
        waiting.push_back(change);
      }
    } else if (!under_way.empty()) {
      const auto left = under_way.begin() + std::rand() % static_cast<int>(under_way.size());
      const uint64_t id = left->id;
      under_way.erase(left);
      for (const uint64_t admitted : leave(&gate, id)) {
        const auto entry =
            std::find_if(waiting.begin(), waiting.end(), [&](const Change& change) { return change.id == admitted; });
        check(entry != waiting.end(), "who is let in has waited");
        const Change change = *entry;
        waiting.erase(entry);
        begin(change);
      }
    }
  }
  check_equal(begun, last_id, "all got in");
  check(gate.empty(), "nobody is left");
}

}  // namespace

int main() {
  return block_queue_test::run_all({
      {"whole units never wait for one another", whole_units_never_wait_for_one_another},
      {"a part of a unit waits for the unit", a_part_of_a_unit_waits_for_the_unit},
      {"a unit waits for its part", a_unit_waits_for_its_part},
      {"nobody is overtaken by what he would wait for", nobody_is_overtaken_by_what_he_would_wait_for},
      {"several are let in at once, in their order", several_are_let_in_at_once_in_their_order},
      {"those under way are never in conflict", those_under_way_are_never_in_conflict},
  });
}
