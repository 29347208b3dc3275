#include "write_gate.h"

#include <algorithm>

namespace block_queue {

namespace {

bool in_conflict(const WriteSpan& one, const WriteSpan& other) {
  return (one.exclusive || other.exclusive) && one.begin < other.end && other.begin < one.end;
}

}  // namespace

// Those that wait count like those that have begun: otherwise a stream of shared changes would starve an exclusive one.
bool WriteGate::may_begin(const WriteSpan& span, size_t ahead) const {
  if (exclusive_ == 0) return true;
  const auto end = entries_.begin() + static_cast<ptrdiff_t>(ahead);
  return std::none_of(entries_.begin(), end, [&](const Entry& entry) { return in_conflict(entry.span, span); });
}

bool WriteGate::enter(uint64_t id, const WriteSpan& span) {
  entries_.push_back({id, span, false});
  if (span.exclusive) ++exclusive_;
  const bool begun = may_begin(span, entries_.size() - 1);
  entries_.back().begun = begun;
  if (!begun) ++waiting_;
  return begun;
}

void WriteGate::remove(uint64_t id) {
  const auto left = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.id == id; });
  if (left->span.exclusive) --exclusive_;
  entries_.erase(left);
}

// Whether it waited, and does not any more.
bool WriteGate::begin_now(size_t index) {
  Entry& entry = entries_[index];
  if (entry.begun || !may_begin(entry.span, index)) return false;
  entry.begun = true;
  --waiting_;
  return true;
}

}  // namespace block_queue
