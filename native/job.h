// Plain data: belongs to whoever holds it.
#ifndef BLOCK_QUEUE_JOB_H_
#define BLOCK_QUEUE_JOB_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "request_queue.h"

namespace block_queue {

class QueuedFile;

// What JavaScript can ask of a file in a batch. The values go over the boundary: see constants in addon.cc.
enum class Operation : uint8_t {
  kOpen = 0,
  kClose,
  kRead,
  kReadQueued,
  kReadZlib,
  kReadZstd,
  kPackZlib,
  kPackZstd,
  kWrite,
  kWriteDurably,
  kWriteZeroes,
  kUnmapZeroes,
  kPunch,
  kAllocate,
  kTruncate,
  kExtent,
  kFlush,
  kDurable,
  kLast = kDurable,
};

// One request on its way through a pool.
struct Job {
  static constexpr uint64_t kNobody = UINT64_MAX;

  std::shared_ptr<QueuedFile> file;
  Operation operation = Operation::kRead;
  uint64_t request = kNobody;       // whom to tell
  uint64_t offset = 0;              // bytes; kTruncate: the new length
  uint64_t length = 0;              // bytes
  uint8_t* data = nullptr;          // memory of V8, pinned by JavaScript until it is told
  size_t room = 0;                  // its bytes
  const uint8_t* source = nullptr;  // kPack...: what to pack, of `length` bytes; as data
  uint64_t ticket = 0;              // at the file's gate, 0 without
  std::vector<RequestQueue::OverlayPiece> overlay;
};

// Jobs that are carried out with one system call, at most.
constexpr size_t kMostJobsTogether = 64;

}  // namespace block_queue

#endif  // BLOCK_QUEUE_JOB_H_
