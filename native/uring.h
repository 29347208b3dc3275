// One thread only: the one that made it.
#ifndef BLOCK_QUEUE_URING_H_
#define BLOCK_QUEUE_URING_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "io_log.h"

namespace block_queue {

// The kernel's io_uring, by its system calls: reads and writes that are begun with one call, and whose results come
// without any. Linux 6.1 or later; only this file and uring.cc know of it.
class Uring {
 public:
  // Requests that have been added and whose results have not been taken, at most.
  static constexpr uint32_t kMostRequests = 256;

  struct Request {
    bool is_write;
    int descriptor;
    // One after the other; what they point to stays until the result, they themselves until submit(). One at least.
    const ReadPiece* pieces;
    size_t count;
    uint64_t offset;  // bytes
    uint32_t tag;     // the caller's own
  };
  struct Result {
    uint32_t tag;
    int32_t bytes;  // or -errno
  };

  // nullptr: there is none, it is too old, or we are not allowed to have it. Throws std::bad_alloc.
  static std::unique_ptr<Uring> make();
  // Nothing is under way.
  ~Uring();
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  // A descriptor that is readable when there may be results, until collect().
  int event() const { return event_; }

  void add(const Request& request);
  // Begin all that was added, with one system call; with `wait` it ends when a result has been put down, or a signal
  // came. Those that the kernel does not take are forgotten, and told by their tags: tell(tag).
  template <typename Tell>
  void submit(bool wait, Tell tell) {
    for (uint32_t left = begin_added(wait); left > 0; --left) tell(take_back());
  }

  // Let the kernel put down what is over; with `wait` there is something at least, if anything is under way.
  void collect(bool wait);
  // A result that was put down, each once.
  bool take(Result* result);

 private:
  Uring() = default;
  bool set_up();
  bool set_up_event();
  bool map(size_t size, int64_t place, void** memory);
  // -> how many are left that it did not take.
  uint32_t begin_added(bool wait);
  uint32_t take_back();

  struct Mapping {
    void* memory;
    size_t size;
  };

  int descriptor_ = -1;
  int event_ = -1;
  std::vector<Mapping> mappings_;  // with room for all three
  uint32_t added_ = 0;             // and not submitted
  // Shared with the kernel: it moves completion_tail_ and sets the flags, we move the other two.
  uint32_t* submission_tail_ = nullptr;
  const uint32_t* submission_flags_ = nullptr;
  uint32_t* completion_head_ = nullptr;
  uint32_t* completion_tail_ = nullptr;
  uint32_t submission_mask_ = 0;
  uint32_t completion_mask_ = 0;
  void* submissions_ = nullptr;
  const void* completions_ = nullptr;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_URING_H_
