#include "request_queue.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <limits>
#include <new>

namespace block_queue {

namespace {

// In place of the lowest pending section where nothing is pending: above every target.
constexpr Section kNothingPending = std::numeric_limits<Section>::max();

// The disk may have room again later; of any other error nobody can say what reached the disk.
bool is_disk_full(int error) {
#ifdef EDQUOT  // unknown to Windows
  if (error == EDQUOT) return true;
#endif
  return error == ENOSPC;
}

// Takes back a change that others were to follow, unless they all did.
template <typename TakeBack>
class Tentative {
 public:
  explicit Tentative(TakeBack take_back) : take_back_(take_back) {}
  Tentative(const Tentative&) = delete;
  Tentative& operator=(const Tentative&) = delete;
  ~Tentative() {
    if (!is_final_) take_back_();
  }
  void make_final() { is_final_ = true; }

 private:
  TakeBack take_back_;
  bool is_final_ = false;
};

bool contains(const Node& node, uint64_t offset, uint64_t length) {
  return offset >= node.offset && length <= node.bytes.size() && offset - node.offset <= node.bytes.size() - length;
}

}  // namespace

RequestQueue::RequestQueue(SyncPolicy policy, size_t memory_alignment, uint64_t idle_limit_ms)
    : policy_(policy), memory_alignment_(memory_alignment), idle_limit_ms_(idle_limit_ms) {}

// ---- Nodes ----

template <typename Visit>
void RequestQueue::for_each_overlapping(uint64_t offset, uint64_t length, Visit visit) const {
  if (length == 0 || lengths_.empty()) return;
  const uint64_t reach = lengths_.rbegin()->first - 1;
  const uint64_t last = length - 1 > std::numeric_limits<uint64_t>::max() - offset
                            ? std::numeric_limits<uint64_t>::max()
                            : offset + (length - 1);
  const auto end = index_.upper_bound(last);
  for (auto it = index_.lower_bound(offset > reach ? offset - reach : 0); it != end; ++it) {
    const MutableNode& node = it->second;
    if (node->offset + (node->bytes.size() - 1) >= offset) visit(node);
  }
}

// Throws std::bad_alloc, with nothing changed.
void RequestQueue::insert(const MutableNode& node) {
  const size_t length = node->bytes.size();
  const auto entry = index_.emplace(node->offset, node);
  Tentative indexed([&] { index_.erase(entry); });
  const auto count = lengths_.try_emplace(length, 0).first;
  Tentative counted([&] {
    if (count->second == 0) lengths_.erase(count);
  });
  const auto place = queued_.try_emplace(node->section);
  Tentative placed([&] {
    if (place.second) queued_.erase(place.first);
  });
  const bool has_age = place.second && policy_ != SyncPolicy::kEveryWrite;
  if (has_age) ages_.push_back({node->section, node->queued_at_ms});
  Tentative aged([&] {
    if (has_age) ages_.pop_back();
  });
  place.first->second.emplace(node->offset, node);

  indexed.make_final();
  counted.make_final();
  placed.make_final();
  aged.make_final();
  ++count->second;
  queued_bytes_ += length;
  highest_ = std::max(highest_, node->section);
  counters_.queued_bytes_peak = std::max<uint64_t>(counters_.queued_bytes_peak, queued_bytes_);
  counters_.queued_nodes_peak = std::max<uint64_t>(counters_.queued_nodes_peak, index_.size());
}

// The node is written: the file itself answers for its bytes from now on.
void RequestQueue::forget(const Node& node) {
  const size_t length = node.bytes.size();
  const auto count = lengths_.find(length);
  if (--count->second == 0) lengths_.erase(count);
  queued_bytes_ -= length;
  const auto [first, last] = index_.equal_range(node.offset);
  const auto entry = std::find_if(first, last, [&](const auto& item) { return item.second.get() == &node; });
  index_.erase(entry);
}

Section RequestQueue::enqueue(uint64_t offset, const uint8_t* bytes, size_t length, Section earliest, uint64_t now_ms) {
  MutableNode newest;
  for_each_overlapping(offset, length, [&](const MutableNode& node) {
    if (!newest || node->section > newest->section) newest = node;
  });

  // Two versions in one section may land in either order, so a newer one is folded in or goes behind. Folding into a
  // section that is sealed would change bytes under the worker; into one before `earliest`, overtake what it depends
  // on.
  if (newest && policy_ != SyncPolicy::kEveryWrite && newest->section >= std::max(open_, earliest) &&
      contains(*newest, offset, length)) {
    std::memcpy(newest->bytes.data() + (offset - newest->offset), bytes, length);
    ++counters_.nodes_queued;
    ++counters_.nodes_coalesced;
    return newest->section;
  }

  Section section = std::max(open_, earliest);
  if (newest) section = std::max(section, newest->section + 1);
  if (policy_ == SyncPolicy::kEveryWrite) section = std::max(section, highest_ + 1);

  AlignedBytes copy = AlignedBytes::allocate(length, memory_alignment_);
  if (!copy) return 0;
  std::memcpy(copy.data(), bytes, length);
  try {
    insert(std::make_shared<Node>(Node{offset, std::move(copy), section, now_ms}));
  } catch (const std::bad_alloc&) {
    return 0;
  }
  ++counters_.nodes_queued;
  return section;
}

std::vector<RequestQueue::OverlayPiece> RequestQueue::collect_overlay(uint64_t offset, uint64_t length) const {
  std::vector<MutableNode> nodes;
  for_each_overlapping(offset, length, [&](const MutableNode& node) { nodes.push_back(node); });
  // Nodes of one section do not overlap: their order among themselves is free.
  std::sort(nodes.begin(), nodes.end(), [](const auto& a, const auto& b) { return a->section < b->section; });

  std::vector<OverlayPiece> pieces;
  pieces.reserve(nodes.size());
  for (const MutableNode& node : nodes) {
    const uint64_t from = std::max(offset, node->offset);
    const uint64_t skipped = from - node->offset;
    const uint64_t count = std::min<uint64_t>(node->bytes.size() - skipped, length - (from - offset));
    const uint8_t* const start = node->bytes.data() + skipped;
    pieces.push_back({from, std::vector<uint8_t>(start, start + count)});
  }
  return pieces;
}

bool RequestQueue::overlaps(uint64_t offset, uint64_t length) const { return pending_section(offset, length) != 0; }

Section RequestQueue::pending_section(uint64_t offset, uint64_t length) const {
  Section highest = 0;
  for_each_overlapping(offset, length, [&](const MutableNode& node) { highest = std::max(highest, node->section); });
  return highest;
}

// ---- What is asked for ----

Section RequestQueue::section_after_data() const {
  if (policy_ == SyncPolicy::kNever) return open_;
  // The section before `open_` is being written (or will be once more), or no sync has started since it was: one has to
  // start in front of `open_`, and it is still to come.
  const bool barrier_to_come = sealed_section_ != 0 || nodes_unsynced_;
  return barrier_to_come ? open_ : open_ + 1;
}

void RequestQueue::data_written() { data_unsynced_ = true; }

void RequestQueue::flush(uint64_t id, Waiters* finished) {
  const bool is_over = poisoned_ != 0 || (policy_ == SyncPolicy::kNever && highest_ <= durable_);
  Waiters* const list = is_over ? finished : &flushes_;
  add_waiter(list, list->end(), {id, highest_, poisoned_});
  ++counters_.flushes_asked;
  stalled_ = 0;
}

void RequestQueue::await_durable(uint64_t id, Section section, Waiters* finished) {
  const Section target = std::min(section, highest_);
  const bool is_written = policy_ == SyncPolicy::kNever && target < lowest_pending();
  if (poisoned_ != 0 || target <= durable_ || is_written) {
    add_waiter(finished, finished->end(), {id, target, poisoned_});
  } else {
    // As a rule the latest asks for the highest.
    auto place = awaiting_.end();
    while (place != awaiting_.begin() && std::prev(place)->target > target) --place;
    add_waiter(&awaiting_, place, {id, target, 0});
  }
  stalled_ = 0;
}

// Throws std::bad_alloc, with nothing changed.
void RequestQueue::add_waiter(Waiters* list, Waiters::iterator place, const Waiter& waiter) {
  if (spare_waiters_.empty()) {
    list->insert(place, waiter);
  } else {
    spare_waiters_.front() = waiter;
    list->splice(place, spare_waiters_, spare_waiters_.begin());
  }
}

void RequestQueue::drain() {
  stalled_ = 0;
  drain_target_ = highest_;
}

bool RequestQueue::write_ahead() {
  const Section lowest = lowest_pending();
  if (lowest == kNothingPending || stalled_ != 0 || sync_needed_before(lowest)) return false;
  drain_target_ = std::max(drain_target_, lowest);
  return true;
}

// ---- What comes next ----

Section RequestQueue::lowest_pending() const {
  if (sealed_section_ != 0) return sealed_section_;
  return queued_.empty() ? kNothingPending : queued_.begin()->first;
}

// Everything up to here has to be written.
Section RequestQueue::wanted() const {
  Section highest = std::max(drain_target_, idle_target_);
  if (!flushes_.empty()) highest = std::max(highest, flushes_.back().target);
  if (!awaiting_.empty()) highest = std::max(highest, awaiting_.back().target);
  return highest;
}

bool RequestQueue::sync_needed_before(Section section) const {
  if (policy_ == SyncPolicy::kNever) return false;
  // Data asks for a sync only in front of the sections that section_after_data() can have answered: not of `open_`
  // itself, where it answered so only while nodes made that sync necessary anyway.
  return nodes_unsynced_ || (data_unsynced_ && section > open_);
}

bool RequestQueue::final_sync_wanted() const {
  return policy_ != SyncPolicy::kNever && (!flushes_.empty() || !awaiting_.empty() || idle_target_ > durable_);
}

void RequestQueue::note_ages(uint64_t now_ms) {
  while (!ages_.empty() && ages_.front().section <= durable_) ages_.pop_front();
  if (idle_limit_ms_ == 0 || ages_.empty()) return;
  if (now_ms >= ages_.front().first_queued_at_ms + idle_limit_ms_) idle_target_ = highest_;
}

std::optional<uint64_t> RequestQueue::deadline_ms() const {
  if (idle_limit_ms_ == 0 || poisoned_ != 0 || stalled_ != 0) return std::nullopt;
  for (const SectionAge& age : ages_) {
    if (age.section > durable_) return age.first_queued_at_ms + idle_limit_ms_;
  }
  return std::nullopt;
}

Action RequestQueue::next(uint64_t now_ms) {
  if (outstanding_ != Action::Kind::kIdle || poisoned_ != 0 || stalled_ != 0) return {};
  const Section lowest = lowest_pending();
  if (policy_ == SyncPolicy::kEveryWrite) return next_unqueued(lowest);

  note_ages(now_ms);
  if (lowest <= wanted()) return sync_needed_before(lowest) ? start_sync(lowest, true) : start_write(lowest);
  // What is left is written as far as anybody wants it: a flush that came while a sync ran gets the next one here.
  if (final_sync_wanted()) return start_sync(lowest, false);
  return {};
}

// Policy kEveryWrite: everything is wanted, every node is followed by its sync, every flush has a sync of its own.
Action RequestQueue::next_unqueued(Section lowest) {
  const bool more = lowest != kNothingPending;
  if (nodes_unsynced_) return start_sync(lowest, more);
  if (!flushes_.empty() && flushes_.front().target < lowest) return start_sync(lowest, false);
  if (!more) return {};
  return sync_needed_before(lowest) ? start_sync(lowest, true) : start_write(lowest);
}

Action RequestQueue::start_write(Section section) {
  if (sealed_section_ == 0) {
    const auto first = queued_.begin();
    sealed_ = std::move(first->second);
    sealed_section_ = section;
    queued_.erase(first);
    open_ = section + 1;
  }
  outstanding_ = Action::Kind::kWrite;
  return {Action::Kind::kWrite, &sealed_};
}

Action RequestQueue::start_sync(Section lowest, bool is_barrier) {
  const bool is_unqueued = policy_ == SyncPolicy::kEveryWrite;
  const size_t most = !is_unqueued ? flushes_.size() : nodes_unsynced_ ? 0 : 1;
  while (sync_finishes_.size() < most && !flushes_.empty() && flushes_.front().target < lowest) {
    sync_finishes_.splice(sync_finishes_.end(), flushes_, flushes_.begin());
  }

  // Empty sections in front of the next node are over: what is queued from now on shares the section behind this sync.
  if (sealed_section_ == 0 && lowest != kNothingPending) open_ = lowest;
  sync_covers_ = (sealed_section_ != 0 ? sealed_section_ : open_) - 1;
  nodes_unsynced_ = false;
  data_unsynced_ = false;
  ++counters_.syncs_issued;
  if (is_barrier) ++counters_.barriers_issued;
  outstanding_ = Action::Kind::kSync;
  return {Action::Kind::kSync, nullptr};
}

// ---- What became of it ----

void RequestQueue::written(int error, Waiters* finished) {
  outstanding_ = Action::Kind::kIdle;
  if (is_disk_full(error)) {
    // The section stays sealed, whole, and in front of all others: nothing is skipped, nothing overtakes it.
    stalled_ = error;
    drain_target_ = 0;
    idle_target_ = 0;
    finish_all_waiters(error, finished);
    return;
  }
  if (error != 0) return give_up(error, finished);

  for (const auto& [offset, node] : sealed_) {
    counters_.node_bytes_written += node->bytes.size();
    forget(*node);
  }
  sealed_.clear();
  const Section section = std::exchange(sealed_section_, 0);
  if (policy_ == SyncPolicy::kNever) {
    make_durable(section, finished);
  } else {
    nodes_unsynced_ = true;
  }
}

void RequestQueue::synced(int error, Waiters* finished) {
  outstanding_ = Action::Kind::kIdle;
  // The kernel may have dropped the dirty pages and a second attempt would succeed without them: never retried.
  if (error != 0) return give_up(error, finished);
  finished->splice(finished->end(), sync_finishes_);
  make_durable(sync_covers_, finished);
}

void RequestQueue::make_durable(Section section, Waiters* finished) {
  durable_ = std::max(durable_, section);
  const auto finish = [&](Waiters* waiting) {
    while (!waiting->empty() && waiting->front().target <= durable_) {
      finished->splice(finished->end(), *waiting, waiting->begin());
    }
  };
  finish(&awaiting_);
  if (policy_ == SyncPolicy::kNever) finish(&flushes_);
}

void RequestQueue::finish_all_waiters(int error, Waiters* finished) {
  for (Waiters* const waiting : {&sync_finishes_, &flushes_, &awaiting_}) {
    for (Waiter& waiter : *waiting) waiter.error = error;
    finished->splice(finished->end(), *waiting);
  }
}

void RequestQueue::give_up(int error, Waiters* finished) {
  if (poisoned_ == 0) poisoned_ = error;
  finish_all_waiters(error, finished);
}

}  // namespace block_queue
