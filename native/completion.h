// post() and wake() from any thread; all else on the JavaScript thread only.
#ifndef BLOCK_QUEUE_COMPLETION_H_
#define BLOCK_QUEUE_COMPLETION_H_

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "request_queue.h"
#include "room.h"

namespace block_queue {

// A request of JavaScript that is over.
struct Completion {
  uint64_t request;  // as JavaScript numbered it
  int error;         // 0 or an errno
  double value;      // what the request asked for, if it asked for a number
};

// The way from all threads of an environment back to JavaScript: what is over since the last wake-up is delivered as
// one batch. A wake-up costs a system call and a turn of the event loop; so only one is under way at a time.
class CompletionQueue {
 public:
  // deliver: called on the JavaScript thread, within a callback scope, for each wake-up.
  CompletionQueue(Napi::Env env, std::function<void(Napi::Env)> deliver);
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;

  ~CompletionQueue() { close(); }

  // Room for so many completions that have not been taken, and so many files that exist: post() needs no memory for
  // them. Throws std::bad_alloc.
  void make_room(size_t completions, size_t files);

  // Whoever posts without waking has to call wake() soon.
  void post(const Completion& completion, bool wake_now);
  // Requests that are over, and a file whose queue has moved on.
  void post_progress(uint32_t file, const Waiters& finished);
  void wake();

  // Move out what is ready: at most most_completions, and most_files files, each of them once. If more is ready another
  // wake-up follows, so that timers and sockets have their turn in between. The vectors have the capacity.
  // unasked: not by a wake-up of this queue; one that is under way is still to come.
  void take(size_t most_completions, size_t most_files, bool unasked, std::vector<Completion>* completions,
            std::vector<uint32_t>* files);

  // While held the environment does not end for lack of work.
  void hold(bool held);

  // No thread posts any more. Nothing is delivered afterwards.
  void close();

 private:
  static void call_js(Napi::Env env, Napi::Function, CompletionQueue* queue, void*);
  using Function = Napi::TypedThreadSafeFunction<CompletionQueue, void, &CompletionQueue::call_js>;

  void wake(std::unique_lock<std::mutex> lock);

  const std::function<void(Napi::Env)> deliver_;
  const Napi::Env env_;
  Function function_;
  bool held_ = false;
  bool closed_ = false;

  std::mutex mutex_;
  Ring<Completion> ready_;            // guarded by mutex_
  std::vector<uint32_t> progressed_;  // guarded by mutex_
  bool wake_pending_ = false;         // guarded by mutex_
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_COMPLETION_H_
