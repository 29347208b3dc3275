// Callable from any thread.
#ifndef BLOCK_QUEUE_IO_LOG_H_
#define BLOCK_QUEUE_IO_LOG_H_

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace block_queue {

// One piece of memory to be written, as struct iovec.
struct WritePiece {
  const uint8_t* data;
  size_t length;
};

struct ReadPiece {
  uint8_t* data;
  size_t length;
};

// More than so many pieces no system takes in one call: IOV_MAX of Linux and macOS.
constexpr size_t kMostPieces = 1024;

// What happened to a file, as it is told to JavaScript: see DeviceEvent in lib/queue/memory-device.ts.
struct IoEvent {
  enum class Type : uint8_t { kSubmitted, kEnded, kSyncStarted, kSyncEnded, kNoted };
  enum class Kind : uint8_t { kWrite, kZero, kPunch, kAllocate, kTruncate };

  Type type = Type::kNoted;
  Kind kind = Kind::kWrite;  // kSubmitted
  int error = 0;             // kEnded, kSyncEnded
  uint64_t id = 0;           // the same for the beginning and the end; kNoted: whatever was noted
  uint64_t offset = 0;       // bytes, as length
  uint64_t length = 0;
  uint64_t section = 0;        // of metadata; 0: data
  std::vector<uint8_t> bytes;  // as they were when submitted
};

// All writes and syncs of one file, each with its beginning and its end, in one order. A beginning is noted before the
// system is called, an end after it has answered. For tests: it grows until it is taken.
class IoLog {
 public:
  // Both answer a number for the end; or 0, with nothing noted, when there is no memory. The end needs none then.
  uint64_t begin(IoEvent::Kind kind, uint64_t offset, uint64_t length, uint64_t section, const WritePiece* pieces,
                 size_t count);
  void end(uint64_t id, int error);
  uint64_t begin_sync();
  void end_sync(uint64_t id, int error);
  // Something of the caller's own, between what happens to the file. Throws std::bad_alloc, as take().
  void note(uint64_t id);
  std::vector<IoEvent> take();

 private:
  uint64_t add_beginning(IoEvent event);
  void add_end(IoEvent event);

  std::mutex mutex_;
  uint64_t last_id_ = 0;
  size_t under_way_ = 0;  // begun, not ended: events_ has room for their ends
  std::vector<IoEvent> events_;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_IO_LOG_H_
