#include "inflate.h"

#include <errno.h>
#include <zlib.h>  // of Node's own headers: types and constants only

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace block_queue {

namespace {

// Zlib as the process has it. Nothing is linked: where it is not there JavaScript unpacks.
struct Zlib {
  decltype(&::inflateInit2_) init = nullptr;
  decltype(&::inflate) run = nullptr;
  decltype(&::inflateEnd) end = nullptr;

  bool is_whole() const { return init != nullptr && run != nullptr && end != nullptr; }
};

template <typename Function>
void find(const char* name, Function* function) {
#ifdef _WIN32
  // Of the program itself, whatever its name is.
  *function = reinterpret_cast<Function>(reinterpret_cast<void*>(::GetProcAddress(::GetModuleHandleW(nullptr), name)));
#else
  *function = reinterpret_cast<Function>(::dlsym(RTLD_DEFAULT, name));
#endif
}

Zlib find_zlib() {
  Zlib zlib;
  // Chromium's zlib, which Node is built with, puts a prefix before the names.
  find("Cr_z_inflateInit2_", &zlib.init);
  find("Cr_z_inflate", &zlib.run);
  find("Cr_z_inflateEnd", &zlib.end);
  if (zlib.is_whole()) return zlib;
  find("inflateInit2_", &zlib.init);
  find("inflate", &zlib.run);
  find("inflateEnd", &zlib.end);
  return zlib;
}

const Zlib& zlib_of_process() {
  static const Zlib zlib = find_zlib();
  return zlib;
}

// The largest window: a stream with a smaller one is unpacked as well. Negative: no header.
constexpr int kRawStream = -15;

}  // namespace

bool can_inflate() { return zlib_of_process().is_whole(); }

int inflate_raw(const uint8_t* packed, size_t packed_length, uint8_t* data, size_t room, int64_t* unpacked) {
  const Zlib& zlib = zlib_of_process();
  z_stream stream = {};
  if (zlib.init(&stream, kRawStream, ZLIB_VERSION, static_cast<int>(sizeof(stream))) != Z_OK) return ENOMEM;
  stream.next_in = const_cast<Bytef*>(packed);
  stream.avail_in = static_cast<uInt>(packed_length);
  stream.next_out = data;
  stream.avail_out = static_cast<uInt>(room);
  int status = zlib.run(&stream, Z_SYNC_FLUSH);
  if ((status == Z_OK || status == Z_BUF_ERROR) && stream.avail_out == 0) {
    // It is full: what comes out beyond that is too much.
    Bytef more = 0;
    stream.next_out = &more;
    stream.avail_out = 1;
    status = zlib.run(&stream, Z_SYNC_FLUSH);
  }
  const auto all = static_cast<uint64_t>(stream.total_out);
  zlib.end(&stream);
  if (status == Z_MEM_ERROR) return ENOMEM;
  const bool is_sound = (status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR) && all <= room;
  *unpacked = is_sound ? static_cast<int64_t>(all) : -1;
  return 0;
}

}  // namespace block_queue
