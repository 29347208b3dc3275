#include "worker.h"

#include <errno.h>

#include <algorithm>
#include <array>
#include <exception>
#include <new>
#include <utility>

namespace block_queue {

namespace {

uint64_t milliseconds(Clock::time_point time) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count());
}

Clock::time_point time_point(uint64_t milliseconds) {
  return Clock::time_point(std::chrono::milliseconds(milliseconds));
}

// However slow the disk is.
constexpr std::chrono::milliseconds kLongestGathering(4);
// Waiting as long as a sync takes. After so many syncs that nobody was waited for longer, it is tried again.
constexpr int kPatienceOfOneSync = 4;
constexpr int kSyncsInImpatience = 64;

}  // namespace

Worker::Worker(SyncPolicy policy, size_t memory_alignment, uint64_t idle_limit_ms, Callbacks callbacks)
    : policy_(policy),
      writes_unasked_(policy == SyncPolicy::kEveryWrite || idle_limit_ms != 0),
      idle_limit_(idle_limit_ms),
      callbacks_(std::move(callbacks)),
      queue_(policy, memory_alignment, idle_limit_ms) {}

Section Worker::enqueue(uint64_t offset, const uint8_t* bytes, size_t length, Section earliest, QueueState* state) {
  std::unique_lock<std::mutex> lock(mutex_);
  // So that a wrong number cannot use up the numbers: they have to stay exact in JavaScript.
  if (earliest > queue_.highest_section() + 2) return kNoSuchSection;
  const Section section = queue_.enqueue(offset, bytes, length, earliest, milliseconds(Clock::now()));
  // A thread that waits for an older node's time need not hear of a younger one.
  const bool is_for_thread = section != 0 && writes_unasked_ && start_thread() &&
                             (policy_ == SyncPolicy::kEveryWrite || resting_without_deadline_);
  if (is_for_thread) asked_ = true;
  Waiters finished;
  if (section == 0) queue_.give_up(ENOMEM, &finished);
  *state = state_locked();
  lock.unlock();
  // Without the lock, here and below, or the thread would wake up only to wait for it.
  if (is_for_thread) wake_up_.notify_one();
  if (section == 0) callbacks_.progress(finished);
  return section;
}

void Worker::ask(Question* questions, size_t count, Waiters* finished) {
  std::unique_lock<std::mutex> lock(mutex_);
  const bool is_running = start_thread();
  for (size_t i = 0; i < count; ++i) {
    Question& question = questions[i];
    question.refused = is_running ? 0 : EAGAIN;
    if (!is_running) continue;
    try {
      if (question.section) {
        queue_.await_durable(question.id, *question.section, finished);
      } else {
        queue_.flush(question.id, finished);
        ++flushes_asked_;
      }
    } catch (const std::bad_alloc&) {
      question.refused = ENOMEM;
    }
  }
  asked_ = true;
  lock.unlock();
  wake_up_.notify_one();
}

bool Worker::drain() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (queue_.queued_nodes() == 0) return true;
  if (!start_thread()) return false;
  queue_.drain();
  draining_ = true;
  asked_ = true;
  lock.unlock();
  wake_up_.notify_one();
  return true;
}

void Worker::write_ahead() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!queue_.write_ahead() || !start_thread()) return;
  asked_ = true;
  lock.unlock();
  wake_up_.notify_one();
}

Section Worker::section_after_data() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return queue_.section_after_data();
}

Section Worker::pending_section(uint64_t offset, uint64_t length) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return queue_.pending_section(offset, length);
}

std::vector<RequestQueue::OverlayPiece> Worker::collect_overlay(uint64_t offset, uint64_t length) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return queue_.collect_overlay(offset, length);
}

void Worker::data_written() {
  const std::lock_guard<std::mutex> lock(mutex_);
  queue_.data_written();
}

QueueState Worker::state() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return state_locked();
}

WorkerCounters Worker::counters() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {queue_.counters(), nodes_merged_, sync_microseconds_};
}

QueueState Worker::state_locked() const {
  QueueState state;
  state.durable_section = queue_.durable_section();
  state.queued_bytes = queue_.queued_bytes();
  state.queued_nodes = queue_.queued_nodes();
  state.poisoned = queue_.poisoned();
  state.stalled = queue_.stalled();
  const bool may_move = state.queued_nodes > 0 && state.poisoned == 0 && state.stalled == 0;
  state.will_move = may_move && thread_.joinable() && (asked_ || !resting_without_deadline_);
  return state;
}

bool Worker::start_thread() {
  if (thread_.joinable()) return true;
  if (stop_deadline_) return false;
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::exception&) {  // no thread, or no memory for it
    return false;
  }
  return true;
}

void Worker::request_stop(Clock::time_point deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (queue_.queued_nodes() > 0) {
    start_thread();
    queue_.drain();
  }
  stop_deadline_ = stop_deadline_ ? std::min(*stop_deadline_, deadline) : deadline;
  asked_ = true;
  lock.unlock();
  wake_up_.notify_one();
}

void Worker::join() {
  std::thread thread;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    thread = std::move(thread_);
  }
  if (thread.joinable()) {
    thread.join();
  } else {
    run();
  }
}

// The thread's life.
void Worker::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  Waiters finished;
  while (!stop_deadline_ || Clock::now() < *stop_deadline_) {
    gather(&lock);
    asked_ = false;
    const Action action = queue_.next(milliseconds(Clock::now()));
    if (action.kind == Action::Kind::kIdle) {
      if (stop_deadline_) return;
      rest(&lock);
      continue;
    }
    queue_.recycle(&finished);
    has_worked_ = true;
    lock.unlock();
    if (action.kind == Action::Kind::kWrite) {
      uint64_t merged = 0;
      const int error = write_nodes(*action.nodes, &merged);
      lock.lock();
      nodes_merged_ += merged;
      queue_.written(error, &finished);
      // What follows is as a rule the sync: one word about both is enough, unless somebody waits for room.
      untold_ = error == 0 && finished.empty() && !draining_ && policy_ != SyncPolicy::kNever;
    } else {
      const Clock::time_point before = Clock::now();
      const int error = callbacks_.sync();
      const auto taken = Clock::now() - before;
      lock.lock();
      count_sync(static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(taken).count()));
      queue_.synced(error, &finished);
      untold_ = false;
      usual_sync_time_ = (3 * usual_sync_time_ + taken) / 4;
      flushes_expected_ = policy_ == SyncPolicy::kOnFlush ? flushes_asked_ + finished.size() : 0;
      synced_at_ = before + taken;
    }
    if (untold_) continue;
    lock.unlock();
    callbacks_.progress(finished);
    lock.lock();
  }
}

// Under concurrency, those who were answered by the last sync are about to come back. To start the next one with the
// first of them would split the writers into ever smaller groups, each with syncs of its own. So it waits for as many
// as were answered, for the time of four syncs if that is what it takes to bring all together; but not again
// and again for those who do not come. A lone writer never waits: he is all that is waited for.
void Worker::gather(std::unique_lock<std::mutex>* lock) {
  const auto complete = [this] { return flushes_asked_ >= flushes_expected_ || draining_ || stop_deadline_; };
  if (queue_.flushes_waiting() == 0 || complete()) return;
  const Clock::time_point first = Clock::now();
  const auto most = std::min<Clock::duration>(usual_sync_time_ * patience_ / kPatienceOfOneSync, kLongestGathering);
  bool is_late = first - synced_at_ > kLongestGathering;  // whoever it is, he is not one of them
  if (!is_late) {
    while (!is_late && !complete()) is_late = wake_up_.wait_until(*lock, first + most) == std::cv_status::timeout;
    learn_patience(is_late);
  }
  flushes_expected_ = 0;
}

void Worker::learn_patience(bool in_vain) {
  if (impatient_syncs_left_ > 0 && --impatient_syncs_left_ == 0) {
    patience_ = kMostPatience;
  } else if (in_vain) {
    patience_ /= 2;
    if (impatient_syncs_left_ == 0) impatient_syncs_left_ = kSyncsInImpatience;
  }
}

void Worker::rest(std::unique_lock<std::mutex>* lock) {
  const auto asked = [this] { return asked_; };
  std::optional<uint64_t> until_ms = queue_.deadline_ms();
  // For as long as no node can come due that is queued from now on, the thread need not hear of any: after work more is
  // likely to come.
  const bool is_after_work = std::exchange(has_worked_, false);
  if (!until_ms && is_after_work && writes_unasked_ && policy_ != SyncPolicy::kEveryWrite &&
      queue_.queued_nodes() == 0) {
    until_ms = milliseconds(Clock::now() + idle_limit_);
  }
  resting_without_deadline_ = !until_ms;
  draining_ = false;
  // Nodes without a deadline stay until somebody asks for them: JavaScript has to hear that waiting for them is in
  // vain.
  if (untold_ || (resting_without_deadline_ && queue_.queued_nodes() > 0)) {
    untold_ = false;
    lock->unlock();
    callbacks_.progress({});
    lock->lock();
  }
  if (until_ms) {
    wake_up_.wait_until(*lock, time_point(*until_ms), asked);
  } else {
    wake_up_.wait(*lock, asked);
  }
  resting_without_deadline_ = false;
}

// Nodes that touch one another go to the device together.
int Worker::write_nodes(const NodesByOffset& nodes, uint64_t* merged) {
  std::array<WritePiece, kMostPieces> pieces;
  for (auto node = nodes.begin(); node != nodes.end();) {
    const uint64_t begin = node->first;
    const Section section = node->second->section;
    uint64_t end = begin;
    size_t count = 0;
    for (; node != nodes.end() && node->first == end && count < pieces.size(); ++node) {
      const AlignedBytes& bytes = node->second->bytes;
      pieces[count++] = {bytes.data(), bytes.size()};
      end += bytes.size();
    }
    const int error = callbacks_.write(begin, section, pieces.data(), count);
    if (error != 0) return error;
    if (count > 1) *merged += count;
  }
  return 0;
}

void Worker::count_sync(uint64_t microseconds) {
  size_t power = 0;
  while (power + 1 < sync_microseconds_.size() && (microseconds >> power) > 0) ++power;
  ++sync_microseconds_[power];
}

}  // namespace block_queue
