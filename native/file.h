// Callable from any thread; open() and close() only while nobody else uses the object. The only file besides file.cc
// and file_windows.cc, and uring.cc, that knows what operating system this is.
#ifndef BLOCK_QUEUE_FILE_H_
#define BLOCK_QUEUE_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "io_log.h"

namespace block_queue {

// A regular file or block device by its descriptor. All functions return 0 or an errno; offsets and lengths are bytes.
// Calls that a signal interrupts are made again; short reads and writes are continued.
class File {
 public:
  struct OpenOptions {
    bool read_only = false;
    bool direct = false;  // O_DIRECT; refused (EINVAL) where the file system cannot
    bool create = false;  // O_CREAT | O_EXCL
  };

  File() = default;
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Never blocks on a FIFO. EISDIR for a directory, ENODEV for what is neither a regular file nor a block device.
  int open(const std::string& path, const OpenOptions& options);
  void close();
  bool is_open() const { return descriptor_ != -1; }
  // Write down from now on what changes the file; nullptr: nothing. The log outlives the file. Before anybody else uses
  // the object.
  void log_to(IoLog* log) { log_ = log; }

  // What O_DIRECT asks of addresses, and of offsets and lengths; powers of two, 1 without O_DIRECT.
  size_t memory_alignment() const { return memory_alignment_; }
  uint64_t offset_alignment() const { return offset_alignment_; }
  bool direct() const { return direct_; }
  // Its length cannot change.
  bool block_device() const { return block_device_; }
  // For system calls that others make. A descriptor, or a handle.
  intptr_t descriptor() const { return descriptor_; }

  int length(uint64_t* length) const;

  // Past the end of the file are zeros. Alignment is the caller's business, as in write().
  int read(uint8_t* data, size_t length, uint64_t offset) const;
  // The pieces one after the other, with one system call where the system has one for it; all of it must be within
  // the file: ERANGE, with some of it read, where that ends before. count: kMostPieces at most.
  int read_pieces(const ReadPiece* pieces, size_t count, uint64_t offset) const;
  // Read only if it can be done at once, from the page cache: EAGAIN otherwise, also where the system cannot tell.
  int read_at_once(uint8_t* data, size_t length, uint64_t offset) const;
  int write(const uint8_t* data, size_t length, uint64_t offset) const;
  // The pieces one after the other; one system call where the system takes as many at once.
  // count: kMostPieces at most. section: theirs in the queue, for the log.
  int write_pieces(const WritePiece* pieces, size_t count, uint64_t offset, uint64_t section) const;
  // Data, and what of the file's metadata is needed to read it back, are durable.
  int sync() const;

  // The range reads as zeros afterwards and is allocated; extends the file. EOPNOTSUPP: nothing was done.
  int zero_range(uint64_t offset, uint64_t length) const;
  // The range is given back and reads as zeros; the length of the file stays. EOPNOTSUPP: nothing was done.
  int punch(uint64_t offset, uint64_t length) const;
  // Space for the range is reserved; extends the file. EOPNOTSUPP: nothing was done.
  int allocate(uint64_t offset, uint64_t length) const;
  // A block device keeps its length: ENOSPC where it is too short, otherwise nothing is done.
  int truncate(uint64_t length) const;

  // How far what begins at offset is stored alike, to the end of the file at most (0 there), and whether it is data.
  int extent(uint64_t offset, uint64_t* length, bool* data) const;

  // Byte range locks that belong to this open file, not to the process (OFD). Neither waits. EAGAIN: somebody else
  // holds it exclusively. ENOTSUP: this system or file system has no such locks.
  int lock_shared(uint64_t byte) const;
  int unlock(uint64_t byte) const;
  // Whether an exclusive lock could be had, which none is taken: false if somebody else holds any lock there.
  int test_exclusive(uint64_t byte, bool* free) const;

 private:
  int find_alignment();

  template <typename Change>
  int logged(IoEvent::Kind kind, uint64_t offset, uint64_t length, uint64_t section, const WritePiece* pieces,
             size_t count, Change change) const;
  int write_now(const uint8_t* data, size_t length, uint64_t offset) const;
  int write_pieces_now(const WritePiece* pieces, size_t count, uint64_t offset) const;
  int sync_now() const;
  int zero_range_now(uint64_t offset, uint64_t length) const;
  int punch_now(uint64_t offset, uint64_t length) const;
  int allocate_now(uint64_t offset, uint64_t length) const;
  int truncate_now(uint64_t length) const;

  intptr_t descriptor_ = -1;  // or a handle
  bool direct_ = false;
  bool block_device_ = false;
  bool read_only_ = false;
  size_t memory_alignment_ = 1;
  uint64_t offset_alignment_ = 1;
  IoLog* log_ = nullptr;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_FILE_H_
