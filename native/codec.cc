#include "codec.h"

namespace block_queue {

bool Codec::has(Compression type) { return type == Compression::kZlib ? ZlibCodec::is_there() : ZstdCodec::is_there(); }

int Codec::unpack(Compression type, const uint8_t* packed, size_t packed_length, uint8_t* data, size_t room,
                  int64_t* unpacked) {
  return type == Compression::kZlib ? zlib_.unpack(packed, packed_length, data, room, unpacked)
                                    : zstd_.unpack(packed, packed_length, data, room, unpacked);
}

int Codec::pack(Compression type, const uint8_t* data, size_t length, uint8_t* bytes, size_t room, int64_t* packed) {
  return type == Compression::kZlib ? zlib_.pack(data, length, bytes, room, packed)
                                    : zstd_.pack(data, length, bytes, room, packed);
}

}  // namespace block_queue
