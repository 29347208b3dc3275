// Callable from any thread. Owns the threads of the data path.
#ifndef BLOCK_QUEUE_IO_POOL_H_
#define BLOCK_QUEUE_IO_POOL_H_

#include <array>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "codec.h"
#include "completion.h"
#include "direct_io.h"
#include "job.h"
#include "room.h"
#include "worker.h"

namespace block_queue {

// Threads that carry out requests, shared by all files of an environment; started when there is work and none is free.
class IoPool {
 public:
  // gather: tell JavaScript of short requests in groups. For cached I/O, where a wake-up costs more than a request.
  IoPool(size_t most_threads, bool gather, CompletionQueue* completions);
  // The threads are joined.
  ~IoPool() = default;
  IoPool(const IoPool&) = delete;
  IoPool& operator=(const IoPool&) = delete;

  // Room for so many jobs that have not begun: to submit them needs no memory. Throws std::bad_alloc.
  void make_room(size_t jobs);

  // Takes the jobs out of the vector.
  void submit(std::vector<Job>* jobs);
  void submit(Job job);

  // Carry on until all is done or the deadline has passed; what has not begun then is dropped, and all that comes
  // later.
  void request_stop(Clock::time_point deadline);
  void join();

 private:
  void submit(Job* jobs, size_t count);

  // With the lock held.
  void start_threads(size_t wanted);
  bool is_over() const;

  size_t take(std::array<Job, kMostJobsTogether>* taken);

  void perform(const Job* jobs, size_t count, Scratch* scratch, Codec* codec);
  void run();

  const size_t most_threads_;
  const bool gather_;
  CompletionQueue* const completions_;

  std::mutex mutex_;
  std::condition_variable work_;
  // All below are guarded by mutex_.
  Ring<Job> jobs_;
  std::vector<std::thread> threads_;
  size_t starting_threads_ = 0;  // not yet in run()
  size_t idle_threads_ = 0;
  std::optional<Clock::time_point> stop_deadline_;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_IO_POOL_H_
