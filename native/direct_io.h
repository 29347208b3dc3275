// Callable from any thread; one scratch on one thread at a time.
#ifndef BLOCK_QUEUE_DIRECT_IO_H_
#define BLOCK_QUEUE_DIRECT_IO_H_

#include <cstddef>
#include <cstdint>

#include "aligned_bytes.h"
#include "file.h"

namespace block_queue {

// Memory of one thread through which requests go whose own memory, offset or length O_DIRECT would refuse.
class Scratch {
 public:
  static constexpr size_t kBytes = size_t{256} << 10;
  // Allocated on first use; nullptr: there is no memory.
  uint8_t* bytes();

 private:
  AlignedBytes bytes_;
};

// As File::read, for any address, offset and length.
int read_any(const File& file, Scratch* scratch, uint8_t* data, size_t length, uint64_t offset);

// As File::write, for any address, offset and length. Where offset or length are not aligned whole units are read,
// changed and written back: nobody else may change these meanwhile (WriteGate). The file ends where it did, or where
// the request does.
int write_any(const File& file, Scratch* scratch, const uint8_t* data, size_t length, uint64_t offset);

// Whole units, one piece after the other, from and to memory that may lie anywhere. Together they are not longer than
// Scratch::kBytes, nor more than kMostPieces. ERANGE as File::read_pieces.
int read_together(const File& file, Scratch* scratch, const ReadPiece* pieces, size_t count, uint64_t offset);
int write_together(const File& file, Scratch* scratch, const WritePiece* pieces, size_t count, uint64_t offset);

// As write_any, of zeros.
int write_zero_bytes(const File& file, Scratch* scratch, uint64_t offset, uint64_t length);

}  // namespace block_queue

#endif  // BLOCK_QUEUE_DIRECT_IO_H_
