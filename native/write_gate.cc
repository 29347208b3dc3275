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
  if (span.exclusive) ++exclusive_;
  const bool begun = may_begin(span, entries_.size());
  entries_.push_back({id, span, begun});
  if (!begun) ++waiting_;
  return begun;
}

std::vector<uint64_t> WriteGate::leave(uint64_t id) {
  const auto left = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.id == id; });
  if (left->span.exclusive) --exclusive_;
  entries_.erase(left);
  std::vector<uint64_t> admitted;
  if (waiting_ == 0) return admitted;
  for (size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    if (entry.begun || !may_begin(entry.span, i)) continue;
    entry.begun = true;
    --waiting_;
    admitted.push_back(entry.id);
  }
  return admitted;
}

}  // namespace block_queue
