// Callable from any thread. The only file besides inflate.cc that knows of zlib.
#ifndef BLOCK_QUEUE_INFLATE_H_
#define BLOCK_QUEUE_INFLATE_H_

#include <cstddef>
#include <cstdint>

namespace block_queue {

// Whether the process that loaded this addon lets others use its zlib: Node does as a rule, Electron does not.
bool can_inflate();

// Unpack a raw deflate stream that begins with `packed` and may end anywhere in it.
// 0 or ENOMEM. *unpacked: the bytes that came out; -1 where the stream is damaged, or holds more than there is room
// for.
int inflate_raw(const uint8_t* packed, size_t packed_length, uint8_t* data, size_t room, int64_t* unpacked);

}  // namespace block_queue

#endif  // BLOCK_QUEUE_INFLATE_H_
