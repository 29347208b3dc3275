// Callable from any thread; one codec on one thread at a time.
#ifndef BLOCK_QUEUE_CODEC_H_
#define BLOCK_QUEUE_CODEC_H_

#include <cstddef>
#include <cstdint>

#include "zlib_codec.h"
#include "zstd_codec.h"

namespace block_queue {

enum class Compression : uint8_t { kZlib, kZstd };

// Packs and unpacks compressed clusters with the libraries that the process has, or for zstd the system. What they ask
// to be set up is kept for the next cluster: 2 MiB at most.
class Codec {
 public:
  // Whether there is a library for it. If not nothing below is called.
  static bool has(Compression type);

  // Unpack what begins with `packed` and may end anywhere in it.
  // 0 or ENOMEM. *unpacked: the bytes that came out; -1 where it is damaged, or holds more than there is room for.
  int unpack(Compression type, const uint8_t* packed, size_t packed_length, uint8_t* data, size_t room,
             int64_t* unpacked);

  // Pack all of data. 0, ENOMEM, or EINVAL for more than 4 GiB. *packed: the bytes that came out; -1 where there is no
  // room for them.
  int pack(Compression type, const uint8_t* data, size_t length, uint8_t* bytes, size_t room, int64_t* packed);

 private:
  ZlibCodec zlib_;
  ZstdCodec zstd_;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_CODEC_H_
