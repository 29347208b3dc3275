// Callable from any thread; one codec on one thread at a time. The only file besides zlib_codec.cc that knows of zlib.
#ifndef BLOCK_QUEUE_ZLIB_CODEC_H_
#define BLOCK_QUEUE_ZLIB_CODEC_H_

#include <zlib.h>  // of Node's own headers: types and constants only

#include <cstddef>
#include <cstdint>

namespace block_queue {

// Raw deflate streams, by the zlib of the process. As Codec says.
class ZlibCodec {
 public:
  static bool is_there();

  ZlibCodec() = default;
  ~ZlibCodec();
  ZlibCodec(const ZlibCodec&) = delete;
  ZlibCodec& operator=(const ZlibCodec&) = delete;

  int unpack(const uint8_t* packed, size_t packed_length, uint8_t* data, size_t room, int64_t* unpacked);
  int pack(const uint8_t* data, size_t length, uint8_t* bytes, size_t room, int64_t* packed);

 private:
  int begin_unpacking();
  int begin_packing();

  // Zlib refers back to them: they stay where they are.
  z_stream inflating_ = {};
  z_stream deflating_ = {};
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_ZLIB_CODEC_H_
