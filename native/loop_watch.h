// JavaScript thread of one environment only.
#ifndef BLOCK_QUEUE_LOOP_WATCH_H_
#define BLOCK_QUEUE_LOOP_WATCH_H_

#include <napi.h>

#include <functional>
#include <memory>

namespace block_queue {

// Has the event loop of an environment look at a descriptor. Does not keep the loop alive.
class LoopWatch {
 public:
  // ready: called by the event loop, outside of every callback scope, whenever the descriptor is readable. nullptr:
  // this host does not let us. Throws std::bad_alloc.
  static std::unique_ptr<LoopWatch> make(napi_env env, int descriptor, std::function<void()> ready);
  // ready is not called any more, and the descriptor may be closed.
  ~LoopWatch();
  LoopWatch(const LoopWatch&) = delete;
  LoopWatch& operator=(const LoopWatch&) = delete;

 private:
  struct Handle;

  LoopWatch() = default;

  // Belongs to the loop, which frees it once it has let go of it. nullptr: it has.
  Handle* handle_ = nullptr;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_LOOP_WATCH_H_
