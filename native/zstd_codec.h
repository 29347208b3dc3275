// Callable from any thread; one codec on one thread at a time. The only file besides zstd_codec.cc that knows of zstd.
#ifndef BLOCK_QUEUE_ZSTD_CODEC_H_
#define BLOCK_QUEUE_ZSTD_CODEC_H_

#include <cstddef>
#include <cstdint>

// As libzstd names them.
struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace block_queue {

// Frames of zstd, by the libzstd of the process. As Codec says.
class ZstdCodec {
 public:
  static bool is_there();

  ZstdCodec() = default;
  ~ZstdCodec();
  ZstdCodec(const ZstdCodec&) = delete;
  ZstdCodec& operator=(const ZstdCodec&) = delete;

  // Frame after frame until there is no room left: what follows belongs to the next cluster.
  int unpack(const uint8_t* packed, size_t packed_length, uint8_t* data, size_t room, int64_t* unpacked);
  // One frame, of zstd's own default level.
  int pack(const uint8_t* data, size_t length, uint8_t* bytes, size_t room, int64_t* packed);

 private:
  ZSTD_DCtx_s* unpacker_ = nullptr;
  ZSTD_CCtx_s* packer_ = nullptr;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_ZSTD_CODEC_H_
