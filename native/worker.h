// Callable from any thread. Owns the ordering thread of one file, and the lock of its queue.
#ifndef BLOCK_QUEUE_WORKER_H_
#define BLOCK_QUEUE_WORKER_H_

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "io_log.h"
#include "request_queue.h"

namespace block_queue {

using Clock = std::chrono::steady_clock;

// [n]: syncs that took less than 2^n microseconds, and not less than 2^(n-1); the last also all that took longer.
using SyncHistogram = std::array<uint64_t, 32>;

// What JavaScript knows about a queue without asking.
struct QueueState {
  Section durable_section = 0;
  uint64_t queued_bytes = 0;
  size_t queued_nodes = 0;
  int poisoned = 0;        // errno, 0 if sound
  int stalled = 0;         // errno of a full disk since which nothing was asked for, or 0
  bool will_move = false;  // nodes wait, and will be written without anybody asking for it
};

// Who wants to wait: for a flush, or for a section to be durable.
struct Question {
  uint64_t id;
  std::optional<Section> section;
  int refused = 0;  // errno: not asked
};

struct WorkerCounters {
  Counters queue;
  uint64_t nodes_merged = 0;
  SyncHistogram sync_microseconds = {};
};

// Runs one file's queue: asks it what comes next, does that, tells it the outcome. The thread starts with the first
// thing to do. It holds the lock while it asks and tells, never while it writes or syncs. It never asks for memory.
class Worker {
 public:
  // What the thread does and whom it tells: called on that thread, without the lock.
  struct Callbacks {
    // Nodes of a section that follow one another without a gap, kMostPieces at most. 0 or an errno.
    std::function<int(uint64_t offset, Section section, const WritePiece* nodes, size_t count)> write;
    std::function<int()> sync;
    std::function<void(const Waiters& finished)> progress;
  };

  Worker(SyncPolicy policy, size_t memory_alignment, uint64_t idle_limit_ms, Callbacks callbacks);
  // The thread never started, or was joined.
  ~Worker() = default;
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // As RequestQueue has them. enqueue: kNoSuchSection if nobody can have learnt of the section `earliest`; 0 if there
  // is no memory, and the queue has been given up therefore.
  static constexpr Section kNoSuchSection = UINT64_MAX;
  Section enqueue(uint64_t offset, const uint8_t* bytes, size_t length, Section earliest, QueueState* state);
  // RequestQueue::flush or await_durable for each; those of one call are asked before a sync can start, and share it.
  // What is over already is appended to finished.
  void ask(Question* questions, size_t count, Waiters* finished);
  // false: the system has no thread for us.
  bool drain();
  // Of a flush that is about to come: write what may be written without a sync, if anything.
  void write_ahead();

  Section section_after_data();
  Section pending_section(uint64_t offset, uint64_t length);
  std::vector<RequestQueue::OverlayPiece> collect_overlay(uint64_t offset, uint64_t length);
  void data_written();
  QueueState state();
  WorkerCounters counters();

  // Finish what is under way, write what is queued until the deadline, drop the rest. May be called again, the earliest
  // deadline counts; afterwards the thread does not start any more.
  void request_stop(Clock::time_point deadline);
  // After request_stop(): wait for the thread. If the system had none for us, what is queued is written in here.
  void join();

 private:
  static constexpr int kMostPatience = 16;

  // All with the lock held.
  bool start_thread();  // false: the system has no thread for us
  QueueState state_locked() const;
  void rest(std::unique_lock<std::mutex>* lock);
  void gather(std::unique_lock<std::mutex>* lock);
  void learn_patience(bool in_vain);
  void count_sync(uint64_t microseconds);

  void run();
  int write_nodes(const NodesByOffset& nodes, uint64_t* merged);

  const SyncPolicy policy_;
  // Whether nodes are written without anybody asking for them.
  const bool writes_unasked_;
  const std::chrono::milliseconds idle_limit_;
  const Callbacks callbacks_;

  std::mutex mutex_;
  std::condition_variable wake_up_;
  // All below are guarded by mutex_.
  std::thread thread_;
  RequestQueue queue_;
  uint64_t nodes_merged_ = 0;
  SyncHistogram sync_microseconds_ = {};
  bool asked_ = false;                     // what next() answers may have changed since it was called
  bool resting_without_deadline_ = false;  // the thread waits to be asked
  bool has_worked_ = false;                // since it rested
  bool draining_ = false;                  // somebody waits for room
  bool untold_ = false;                    // nodes were written and nobody was told
  std::optional<Clock::time_point> stop_deadline_;
  // Gathering: how many flushes have been asked for, and how many there will have been when those who were just
  // answered are back with their next one; since when they could be, and what a sync takes.
  uint64_t flushes_asked_ = 0;
  uint64_t flushes_expected_ = 0;
  Clock::time_point synced_at_;
  Clock::duration usual_sync_time_ = {};
  // How long to wait for them, in parts of a sync; and for how many syncs not to wait longer again.
  int patience_ = kMostPatience;
  int impatient_syncs_left_ = 0;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_WORKER_H_
