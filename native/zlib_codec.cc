#include "zlib_codec.h"

#include <errno.h>

#include <limits>
#include <new>

#include "process_library.h"

namespace block_queue {

namespace {

struct Zlib {
  decltype(&::inflateInit2_) inflate_init = nullptr;
  decltype(&::inflateReset) inflate_reset = nullptr;
  decltype(&::inflate) inflate = nullptr;
  decltype(&::inflateEnd) inflate_end = nullptr;
  decltype(&::deflateInit2_) deflate_init = nullptr;
  decltype(&::deflateReset) deflate_reset = nullptr;
  decltype(&::deflate) deflate = nullptr;
  decltype(&::deflateEnd) deflate_end = nullptr;
  bool is_whole = false;
};

// Where Node has two that with a prefix is V8's, which is slower by half: it goes without the processor's extras.
Zlib find_zlib() {
  Zlib zlib;
  ProcessLibrary plain;
  zlib.is_whole = plain.find("inflateInit2_", &zlib.inflate_init) && plain.find("inflateReset", &zlib.inflate_reset) &&
                  plain.find("inflate", &zlib.inflate) && plain.find("inflateEnd", &zlib.inflate_end) &&
                  plain.find("deflateInit2_", &zlib.deflate_init) && plain.find("deflateReset", &zlib.deflate_reset) &&
                  plain.find("deflate", &zlib.deflate) && plain.find("deflateEnd", &zlib.deflate_end);
  if (zlib.is_whole) return zlib;
  ProcessLibrary prefixed;
  zlib.is_whole = prefixed.find("Cr_z_inflateInit2_", &zlib.inflate_init) &&
                  prefixed.find("Cr_z_inflateReset", &zlib.inflate_reset) &&
                  prefixed.find("Cr_z_inflate", &zlib.inflate) && prefixed.find("Cr_z_inflateEnd", &zlib.inflate_end) &&
                  prefixed.find("Cr_z_deflateInit2_", &zlib.deflate_init) &&
                  prefixed.find("Cr_z_deflateReset", &zlib.deflate_reset) &&
                  prefixed.find("Cr_z_deflate", &zlib.deflate) && prefixed.find("Cr_z_deflateEnd", &zlib.deflate_end);
  return zlib;
}

const Zlib& zlib_of_process() {
  static const Zlib zlib = find_zlib();
  return zlib;
}

// The largest window: a stream with a smaller one is unpacked as well. Negative: no header.
constexpr int kUnpackWindow = -15;
// As QEMU does: 4 KiB, which is all that a reader need keep.
constexpr int kPackWindow = -12;
constexpr int kMostMemory = 9;

// By the addon's own operator new, which the tests let fail.
void* allocate(void*, uInt count, uInt size) { return ::operator new (size_t{count} * size, std::nothrow); }
void release(void*, void* memory) { ::operator delete(memory); }

}  // namespace

bool ZlibCodec::is_there() { return zlib_of_process().is_whole; }

ZlibCodec::~ZlibCodec() {
  if (inflating_.state != nullptr) zlib_of_process().inflate_end(&inflating_);
  if (deflating_.state != nullptr) zlib_of_process().deflate_end(&deflating_);
}

int ZlibCodec::begin_unpacking() {
  const Zlib& zlib = zlib_of_process();
  if (inflating_.state != nullptr) return zlib.inflate_reset(&inflating_);
  inflating_.zalloc = allocate;
  inflating_.zfree = release;
  return zlib.inflate_init(&inflating_, kUnpackWindow, ZLIB_VERSION, static_cast<int>(sizeof(inflating_)));
}

int ZlibCodec::begin_packing() {
  const Zlib& zlib = zlib_of_process();
  if (deflating_.state != nullptr) return zlib.deflate_reset(&deflating_);
  deflating_.zalloc = allocate;
  deflating_.zfree = release;
  return zlib.deflate_init(&deflating_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kPackWindow, kMostMemory, Z_DEFAULT_STRATEGY,
                           ZLIB_VERSION, static_cast<int>(sizeof(deflating_)));
}

int ZlibCodec::unpack(const uint8_t* packed, size_t packed_length, uint8_t* data, size_t room, int64_t* unpacked) {
  if (begin_unpacking() != Z_OK) return ENOMEM;
  const Zlib& zlib = zlib_of_process();
  z_stream& stream = inflating_;
  stream.next_in = const_cast<Bytef*>(packed);
  stream.avail_in = static_cast<uInt>(packed_length);
  stream.next_out = data;
  stream.avail_out = static_cast<uInt>(room);
  int status = zlib.inflate(&stream, Z_SYNC_FLUSH);
  if ((status == Z_OK || status == Z_BUF_ERROR) && stream.avail_out == 0) {
    // It is full: what comes out beyond that is too much.
    Bytef more = 0;
    stream.next_out = &more;
    stream.avail_out = 1;
    status = zlib.inflate(&stream, Z_SYNC_FLUSH);
  }
  if (status == Z_MEM_ERROR) return ENOMEM;
  const auto all = static_cast<uint64_t>(stream.total_out);
  const bool is_sound = (status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR) && all <= room;
  *unpacked = is_sound ? static_cast<int64_t>(all) : -1;
  return 0;
}

int ZlibCodec::pack(const uint8_t* data, size_t length, uint8_t* bytes, size_t room, int64_t* packed) {
  constexpr size_t kMost = std::numeric_limits<uInt>::max();
  if (length > kMost || room > kMost) return EINVAL;
  if (begin_packing() != Z_OK) return ENOMEM;
  z_stream& stream = deflating_;
  stream.next_in = const_cast<Bytef*>(data);
  stream.avail_in = static_cast<uInt>(length);
  stream.next_out = bytes;
  stream.avail_out = static_cast<uInt>(room);
  const bool is_all = zlib_of_process().deflate(&stream, Z_FINISH) == Z_STREAM_END;
  *packed = is_all ? static_cast<int64_t>(stream.total_out) : -1;
  return 0;
}

}  // namespace block_queue
