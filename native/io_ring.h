// JavaScript thread of one environment only.
#ifndef BLOCK_QUEUE_IO_RING_H_
#define BLOCK_QUEUE_IO_RING_H_

#include <napi.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "aligned_bytes.h"
#include "completion.h"
#include "io_pool.h"
#include "job.h"
#include "loop_watch.h"
#include "uring.h"

namespace block_queue {

// The way of reads and writes past the page cache where the kernel has an io_uring for us: no thread is woken for them,
// and none wakes the event loop. What it cannot do as it is goes to the pool, which can do everything: odd offsets and
// lengths, the end of the file, errors.
class IoRing {
 public:
  // nullptr: it cannot be had here. ready: called by the event loop, outside of callback scopes, when it is time for
  // reap(). The pool and completions outlive this. Throws std::bad_alloc.
  static std::unique_ptr<IoRing> make(napi_env env, IoPool* pool, CompletionQueue* completions,
                                      std::function<void()> ready);
  // finish() has been called.
  ~IoRing() = default;
  IoRing(const IoRing&) = delete;
  IoRing& operator=(const IoRing&) = delete;

  // Begin those jobs that can go this way, and take them out of the vector. may_wait: nothing else is out, so that a
  // job whose file wants that may be waited for here. -> whether something was posted, without waking. Needs no memory.
  bool submit(std::vector<Job>* jobs, bool may_wait);
  // Post what is over, without waking: whoever calls delivers it. Needs no memory: see Environment::make_room.
  void reap();
  // Wait for all that has begun: the kernel writes to nobody's memory any more. ready is not called afterwards.
  void finish();

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  // So much goes together at most: several requests under way at the same time are faster than one of their length.
  // Also what is copied if its memory is not aligned. Bytes.
  static constexpr size_t kLongestTogether = size_t{64} << 10;
  static constexpr size_t kBuffers = 64;
  // How long the event loop may be kept by waiting before it has a turn; one wait that takes longer is followed by so
  // many times as long without any.
  static constexpr auto kLongestWaiting = std::chrono::milliseconds(1);
  static constexpr int kPauseAfterLong = 20;

  // One job that is under way. Those that are carried out together are a list; the number of the first is theirs.
  struct Slot {
    Job job;
    uint32_t next = kNone;    // of the list, or of the free ones
    uint32_t buffer = kNone;  // of the first: the memory that stands in for the jobs' own
    uint32_t length = 0;      // of the first: bytes of all together
  };

  IoRing(std::unique_ptr<Uring> uring, IoPool* pool, CompletionQueue* completions);

  bool begin(Job* jobs, size_t count);
  void take_results();
  bool should_wait(const Job& job) const;
  void count_waiting(Clock::time_point since);
  uint32_t keep(Job* jobs, size_t count);
  Job give_up(uint32_t slot);
  uint8_t* buffer_at(uint32_t buffer) { return buffers_.data() + buffer * kLongestTogether; }
  void end(const Uring::Result& result);

  IoPool* const pool_;
  CompletionQueue* const completions_;
  const std::unique_ptr<Uring> uring_;
  std::unique_ptr<LoopWatch> watch_;  // ends before uring_

  std::vector<Slot> slots_;
  uint32_t first_free_ = 0;
  size_t free_ = 0;
  size_t under_way_ = 0;  // requests to the kernel
  // Since the event loop had a turn.
  Clock::duration waited_{};
  Clock::time_point no_waiting_before_{};
  AlignedBytes buffers_;
  std::vector<uint32_t> free_buffers_;
  // Of the requests that are being submitted.
  std::vector<ReadPiece> pieces_;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_IO_RING_H_
