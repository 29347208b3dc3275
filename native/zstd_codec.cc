#include "zstd_codec.h"

#include <errno.h>

#include "process_library.h"

namespace block_queue {

namespace {

// Node's headers lack zstd's. All these are of its stable interface, since version 1.4.
constexpr unsigned kOldestVersion = 10400;
constexpr int kFunctions = 10;

struct Zstd {
  unsigned (*version)() = nullptr;
  ZSTD_DCtx_s* (*create_unpacker)() = nullptr;
  size_t (*free_unpacker)(ZSTD_DCtx_s* unpacker) = nullptr;
  size_t (*unpack)(ZSTD_DCtx_s* unpacker, void* data, size_t room, const void* frame, size_t length) = nullptr;
  size_t (*frame_length)(const void* bytes, size_t length) = nullptr;
  ZSTD_CCtx_s* (*create_packer)() = nullptr;
  size_t (*free_packer)(ZSTD_CCtx_s* packer) = nullptr;
  size_t (*pack)(ZSTD_CCtx_s* packer, void* bytes, size_t room, const void* data, size_t length) = nullptr;
  unsigned (*is_error)(size_t result) = nullptr;
  int (*error_code)(size_t result) = nullptr;
  bool is_whole = false;
};

// How many of the functions are there.
int find_functions(ProcessLibrary library, Zstd* zstd) {
  const int found =
      library.find("ZSTD_versionNumber", &zstd->version) + library.find("ZSTD_createDCtx", &zstd->create_unpacker) +
      library.find("ZSTD_freeDCtx", &zstd->free_unpacker) + library.find("ZSTD_decompressDCtx", &zstd->unpack) +
      library.find("ZSTD_findFrameCompressedSize", &zstd->frame_length) +
      library.find("ZSTD_createCCtx", &zstd->create_packer) + library.find("ZSTD_freeCCtx", &zstd->free_packer) +
      library.find("ZSTD_compress2", &zstd->pack) + library.find("ZSTD_isError", &zstd->is_error) +
      library.find("ZSTD_getErrorCode", &zstd->error_code);
  zstd->is_whole = found == kFunctions && zstd->version() >= kOldestVersion;
  return found;
}

// Node has it from 22.15 on. The system's is for programs that show none of it: the calls within that library would
// find the program's functions, which may be of another version.
Zstd find_zstd() {
  Zstd zstd;
  if (find_functions(ProcessLibrary(), &zstd) == 0) find_functions(ProcessLibrary("libzstd.so.1"), &zstd);
  return zstd;
}

const Zstd& zstd_of_process() {
  static const Zstd zstd = find_zstd();
  return zstd;
}

// Of ZSTD_ErrorCode.
constexpr int kMemoryAllocation = 64;

// Of the format, RFC 8878, section 3.1. Any of 16 numbers begins what a decoder skips.
constexpr uint32_t kDataMagic = 0xfd2fb528;
constexpr uint32_t kSkippableMagic = 0x184d2a50;
constexpr size_t kDescriptorAt = 4;
constexpr uint8_t kSingleSegment = 0x20;
constexpr size_t kWindowAt = 5;
// Of 128 MiB. Larger ones QEMU's decoder refuses too.
constexpr uint8_t kLargestWindow = (27 - 10) << 3;

// Whether a frame begins there that may be handed to zstd. It may know older formats, which are none of qcow2's.
bool begins_frame(const uint8_t* bytes, size_t length) {
  if (length <= kWindowAt) return false;
  const uint32_t magic = bytes[0] | uint32_t{bytes[1]} << 8 | uint32_t{bytes[2]} << 16 | uint32_t{bytes[3]} << 24;
  if ((magic & ~uint32_t{15}) == kSkippableMagic) return true;
  if (magic != kDataMagic) return false;
  // Without a window of its own its contents are the window, and there has to be room for them.
  return (bytes[kDescriptorAt] & kSingleSegment) != 0 || bytes[kWindowAt] <= kLargestWindow;
}

}  // namespace

bool ZstdCodec::is_there() { return zstd_of_process().is_whole; }

ZstdCodec::~ZstdCodec() {
  if (unpacker_ != nullptr) zstd_of_process().free_unpacker(unpacker_);
  if (packer_ != nullptr) zstd_of_process().free_packer(packer_);
}

int ZstdCodec::unpack(const uint8_t* packed, size_t packed_length, uint8_t* data, size_t room, int64_t* unpacked) {
  const Zstd& zstd = zstd_of_process();
  if (unpacker_ == nullptr) unpacker_ = zstd.create_unpacker();
  if (unpacker_ == nullptr) return ENOMEM;
  size_t done = 0;
  *unpacked = -1;
  for (size_t at = 0; done < room && at < packed_length;) {
    const uint8_t* const frame = packed + at;
    if (!begins_frame(frame, packed_length - at)) return 0;
    const size_t length = zstd.frame_length(frame, packed_length - at);
    if (zstd.is_error(length) != 0) return 0;
    // All of a frame at once, to where it belongs: zstd keeps no window of its own then, however large it says it is.
    const size_t more = zstd.unpack(unpacker_, data + done, room - done, frame, length);
    if (zstd.is_error(more) != 0) return zstd.error_code(more) == kMemoryAllocation ? ENOMEM : 0;
    at += length;
    done += more;
  }
  *unpacked = static_cast<int64_t>(done);
  return 0;
}

int ZstdCodec::pack(const uint8_t* data, size_t length, uint8_t* bytes, size_t room, int64_t* packed) {
  const Zstd& zstd = zstd_of_process();
  if (packer_ == nullptr) packer_ = zstd.create_packer();
  if (packer_ == nullptr) return ENOMEM;
  const size_t all = zstd.pack(packer_, bytes, room, data, length);
  *packed = zstd.is_error(all) != 0 ? -1 : static_cast<int64_t>(all);
  return *packed < 0 && zstd.error_code(all) == kMemoryAllocation ? ENOMEM : 0;
}

}  // namespace block_queue
