// File for Windows. Not exercised by the test suite so far: what is optional in file.h (holes, reservations, locks)
// answers that it is not supported, and callers do without.
#ifdef _WIN32

#include <errno.h>
#include <windows.h>

#include <algorithm>
#include <string>

#include "file.h"

namespace block_queue {

namespace {

// No disk asks for more.
constexpr size_t kDirectAlignment = 4096;

constexpr size_t kMostBytesPerCall = size_t{1} << 30;

int errno_of(DWORD error) {
  switch (error) {
    case ERROR_SUCCESS:
      return 0;
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_NAME:
      return ENOENT;
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
      return EACCES;
    case ERROR_WRITE_PROTECT:
      return EROFS;
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS:
      return EEXIST;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
      return ENOSPC;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
      return ENOMEM;
    case ERROR_INVALID_PARAMETER:
      return EINVAL;
    default:
      return EIO;
  }
}

int last_error() { return errno_of(::GetLastError()); }

std::wstring wide(const std::string& utf8) {
  const int length = ::MultiByteToWideChar(CP_UTF8, 0, utf8.data(), static_cast<int>(utf8.size()), nullptr, 0);
  std::wstring result(static_cast<size_t>(length), L'\0');
  ::MultiByteToWideChar(CP_UTF8, 0, utf8.data(), static_cast<int>(utf8.size()), result.data(), length);
  return result;
}

HANDLE handle_of(intptr_t descriptor) { return reinterpret_cast<HANDLE>(descriptor); }

// One positioned transfer. The handle is overlapped, as otherwise the system would carry out one at a time.
template <typename Start>
int transfer(HANDLE handle, uint64_t offset, DWORD* transferred, Start start) {
  const HANDLE event = ::CreateEventW(nullptr, TRUE, FALSE, nullptr);
  if (event == nullptr) return last_error();
  OVERLAPPED overlapped = {};
  overlapped.Offset = static_cast<DWORD>(offset);
  overlapped.OffsetHigh = static_cast<DWORD>(offset >> 32);
  overlapped.hEvent = event;
  *transferred = 0;
  DWORD error = ERROR_SUCCESS;
  if (!start(&overlapped)) error = ::GetLastError();
  if (error == ERROR_SUCCESS || error == ERROR_IO_PENDING) {
    error = ::GetOverlappedResult(handle, &overlapped, transferred, TRUE) ? ERROR_SUCCESS : ::GetLastError();
  }
  ::CloseHandle(event);
  return error == ERROR_HANDLE_EOF ? 0 : errno_of(error);
}

}  // namespace

File::~File() { close(); }

int File::open(const std::string& path, const OpenOptions& options) {
  const std::wstring name = wide(path);
  const DWORD attributes = ::GetFileAttributesW(name.c_str());
  if (attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0) return EISDIR;
  const DWORD access = GENERIC_READ | (options.read_only ? 0u : GENERIC_WRITE);
  const DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
  const DWORD flags = FILE_FLAG_OVERLAPPED | (options.direct ? FILE_FLAG_NO_BUFFERING : 0u);
  const HANDLE handle = ::CreateFileW(name.c_str(), access, share, nullptr, options.create ? CREATE_NEW : OPEN_EXISTING,
                                      FILE_ATTRIBUTE_NORMAL | flags, nullptr);
  if (handle == INVALID_HANDLE_VALUE) return last_error();
  descriptor_ = reinterpret_cast<intptr_t>(handle);
  if (::GetFileType(handle) != FILE_TYPE_DISK) {
    close();
    return ENODEV;
  }
  direct_ = options.direct;
  return direct_ ? find_alignment() : 0;
}

void File::close() {
  if (descriptor_ == -1) return;
  ::CloseHandle(handle_of(descriptor_));
  descriptor_ = -1;
}

int File::find_alignment() {
  memory_alignment_ = kDirectAlignment;
  offset_alignment_ = kDirectAlignment;
  return 0;
}

int File::length(uint64_t* length) const {
  LARGE_INTEGER size;
  if (!::GetFileSizeEx(handle_of(descriptor_), &size)) return last_error();
  *length = static_cast<uint64_t>(size.QuadPart);
  return 0;
}

int File::read(uint8_t* data, size_t length, uint64_t offset) const {
  const HANDLE handle = handle_of(descriptor_);
  while (length > 0) {
    const DWORD wanted = static_cast<DWORD>(std::min(length, kMostBytesPerCall));
    DWORD got = 0;
    const int error = transfer(handle, offset, &got, [&](OVERLAPPED* overlapped) {
      return ::ReadFile(handle, data, wanted, nullptr, overlapped);
    });
    if (error != 0) return error;
    data += got;
    length -= got;
    offset += got;
    if (got == 0 || got % offset_alignment_ != 0) break;
  }
  std::fill_n(data, length, uint8_t{0});
  return 0;
}

int File::read_pieces(const ReadPiece* pieces, size_t count, uint64_t offset) const {
  for (size_t i = 0; i < count; ++i) {
    const int error = read(pieces[i].data, pieces[i].length, offset);
    if (error != 0) return error;
    offset += pieces[i].length;
  }
  return 0;
}

int File::read_at_once(uint8_t*, size_t, uint64_t) const { return EAGAIN; }

int File::write_now(const uint8_t* data, size_t length, uint64_t offset) const {
  const HANDLE handle = handle_of(descriptor_);
  while (length > 0) {
    const DWORD wanted = static_cast<DWORD>(std::min(length, kMostBytesPerCall));
    DWORD done = 0;
    const int error = transfer(handle, offset, &done, [&](OVERLAPPED* overlapped) {
      return ::WriteFile(handle, data, wanted, nullptr, overlapped);
    });
    if (error != 0) return error;
    if (done == 0) return EIO;
    data += done;
    length -= done;
    offset += done;
  }
  return 0;
}

int File::write_pieces_now(const WritePiece* pieces, size_t count, uint64_t offset) const {
  for (size_t i = 0; i < count; ++i) {
    const int error = write(pieces[i].data, pieces[i].length, offset);
    if (error != 0) return error;
    offset += pieces[i].length;
  }
  return 0;
}

int File::sync_now() const { return ::FlushFileBuffers(handle_of(descriptor_)) ? 0 : last_error(); }

int File::zero_range_now(uint64_t, uint64_t) const { return EOPNOTSUPP; }
int File::punch_now(uint64_t, uint64_t) const { return EOPNOTSUPP; }
int File::allocate_now(uint64_t, uint64_t) const { return EOPNOTSUPP; }

int File::truncate_now(uint64_t length) const {
  FILE_END_OF_FILE_INFO end;
  end.EndOfFile.QuadPart = static_cast<LONGLONG>(length);
  const HANDLE handle = handle_of(descriptor_);
  return ::SetFileInformationByHandle(handle, FileEndOfFileInfo, &end, sizeof(end)) ? 0 : last_error();
}

int File::extent(uint64_t offset, uint64_t* length, bool* data) const {
  uint64_t end = 0;
  const int error = this->length(&end);
  *length = offset < end ? end - offset : 0;
  *data = offset < end;
  return error;
}

int File::lock_shared(uint64_t) const { return ENOTSUP; }
int File::unlock(uint64_t) const { return ENOTSUP; }
int File::test_exclusive(uint64_t, bool*) const { return ENOTSUP; }

}  // namespace block_queue

#endif  // _WIN32
