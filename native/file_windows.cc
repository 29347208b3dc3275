// File for Windows. What NTFS has and others lack (holes) answers EOPNOTSUPP there, and callers do without.
#ifdef _WIN32

#include <errno.h>
#include <windows.h>
#include <winioctl.h>

#include <algorithm>
#include <string>

#include "file.h"

namespace block_queue {

namespace {

// No disk asks for more.
constexpr size_t kDirectAlignment = 4096;

constexpr size_t kMostBytesPerCall = size_t{1} << 30;

// Locks are mandatory here: nobody else can read or write what is locked. They stand where no file has bytes.
constexpr uint64_t kLocksBegin = uint64_t{1} << 62;
// Whoever tests a byte holds this one, so that two never test at the same time.
constexpr uint64_t kTestByte = kLocksBegin;
constexpr uint64_t kFirstLock = kLocksBegin + 1;
// A test takes microseconds. Who holds the byte for so many milliseconds has been stopped in the middle of one.
constexpr int kMostTestMilliseconds = 2000;

int errno_of(DWORD error) {
  switch (error) {
    case ERROR_SUCCESS:
      return 0;
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_NAME:
    case ERROR_BAD_NETPATH:
    case ERROR_BAD_NET_NAME:
      return ENOENT;
    case ERROR_ACCESS_DENIED:
      return EACCES;
    case ERROR_SHARING_VIOLATION:
      return EBUSY;
    case ERROR_LOCK_VIOLATION:
      return EAGAIN;
    case ERROR_WRITE_PROTECT:
      return EROFS;
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS:
      return EEXIST;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
      return ENOSPC;
    case ERROR_FILENAME_EXCED_RANGE:
      return ENAMETOOLONG;
    case ERROR_TOO_MANY_OPEN_FILES:
      return EMFILE;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
    case ERROR_NO_SYSTEM_RESOURCES:
      return ENOMEM;
    case ERROR_INVALID_FUNCTION:
    case ERROR_NOT_SUPPORTED:
    case ERROR_CALL_NOT_IMPLEMENTED:
      return EOPNOTSUPP;
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

// The full path in the form that may be longer than 260 characters. Names of devices stay what they are.
std::wstring long_path(const std::string& path) {
  const std::wstring name = wide(path);
  const DWORD room = ::GetFullPathNameW(name.c_str(), 0, nullptr, nullptr);
  std::wstring full(room, L'\0');
  const DWORD length = ::GetFullPathNameW(name.c_str(), room, full.data(), nullptr);
  if (length == 0 || length >= room) return name;
  full.resize(length);
  const auto begins_with = [&](const wchar_t* prefix) { return full.rfind(prefix, 0) == 0; };
  if (begins_with(L"\\\\?\\") || begins_with(L"\\\\.\\")) return full;
  return begins_with(L"\\\\") ? L"\\\\?\\UNC" + full.substr(1) : L"\\\\?\\" + full;
}

HANDLE handle_of(intptr_t descriptor) { return reinterpret_cast<HANDLE>(descriptor); }

void place(OVERLAPPED* overlapped, uint64_t offset) {
  overlapped->Offset = static_cast<DWORD>(offset);
  overlapped->OffsetHigh = static_cast<DWORD>(offset >> 32);
}

// One call that may go on by itself, waited for. The handle is overlapped, as otherwise the system would carry out one
// at a time. -> the system's error
template <typename Start>
DWORD awaited(HANDLE handle, uint64_t offset, DWORD* transferred, Start start) {
  const HANDLE event = ::CreateEventW(nullptr, TRUE, FALSE, nullptr);
  if (event == nullptr) return ::GetLastError();
  OVERLAPPED overlapped = {};
  place(&overlapped, offset);
  overlapped.hEvent = event;
  *transferred = 0;
  DWORD error = ERROR_SUCCESS;
  if (!start(&overlapped)) error = ::GetLastError();
  if (error == ERROR_SUCCESS || error == ERROR_IO_PENDING) {
    error = ::GetOverlappedResult(handle, &overlapped, transferred, TRUE) ? ERROR_SUCCESS : ::GetLastError();
  }
  ::CloseHandle(event);
  return error;
}

// -> the system's error
DWORD control(HANDLE handle, DWORD code, void* in, size_t in_length, void* out, size_t out_length, DWORD* got) {
  return awaited(handle, 0, got, [&](OVERLAPPED* overlapped) {
    return ::DeviceIoControl(handle, code, in, static_cast<DWORD>(in_length), out, static_cast<DWORD>(out_length),
                             nullptr, overlapped);
  });
}

// Without it a hole takes as much as data, and a file is filled with zeros up to wherever it is written.
DWORD make_sparse(HANDLE handle) {
  DWORD none = 0;
  return control(handle, FSCTL_SET_SPARSE, nullptr, 0, nullptr, 0, &none);
}

int lock_byte(HANDLE handle, uint64_t byte, DWORD flags) {
  DWORD none = 0;
  const DWORD error = awaited(handle, byte, &none, [&](OVERLAPPED* overlapped) {
    return ::LockFileEx(handle, flags | LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, overlapped);
  });
  if (error == ERROR_INVALID_FUNCTION || error == ERROR_NOT_SUPPORTED) return ENOTSUP;
  return errno_of(error);
}

// -> the system's error; ERROR_NOT_LOCKED: it was not
DWORD unlock_byte(HANDLE handle, uint64_t byte) {
  OVERLAPPED overlapped = {};
  place(&overlapped, byte);
  return ::UnlockFileEx(handle, 0, 1, 0, &overlapped) ? ERROR_SUCCESS : ::GetLastError();
}

}  // namespace

File::~File() { close(); }

int File::open(const std::string& path, const OpenOptions& options) {
  const std::wstring name = long_path(path);
  const DWORD attributes = ::GetFileAttributesW(name.c_str());
  if (attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0) return EISDIR;
  const DWORD access = GENERIC_READ | (options.read_only ? 0u : GENERIC_WRITE);
  // Others may do what they may do on other systems: locks, not modes, say who uses an image.
  const DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
  const DWORD flags = FILE_FLAG_OVERLAPPED | (options.direct ? FILE_FLAG_NO_BUFFERING : 0u);
  const HANDLE handle = ::CreateFileW(name.c_str(), access, share, nullptr, options.create ? CREATE_NEW : OPEN_EXISTING,
                                      FILE_ATTRIBUTE_NORMAL | flags, nullptr);
  if (handle == INVALID_HANDLE_VALUE) return last_error();
  descriptor_ = reinterpret_cast<intptr_t>(handle);
  // A disk without a file system on it has no size that GetFileSizeEx would tell.
  LARGE_INTEGER size;
  if (::GetFileType(handle) != FILE_TYPE_DISK || !::GetFileSizeEx(handle, &size)) {
    close();
    return ENODEV;
  }
  read_only_ = options.read_only;
  // Not every file system has sparse files. What somebody else has filled stays as it is until a hole is made in it.
  if (!read_only_ && size.QuadPart == 0) make_sparse(handle);
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
    const DWORD error = awaited(handle, offset, &got, [&](OVERLAPPED* overlapped) {
      return ::ReadFile(handle, data, wanted, nullptr, overlapped);
    });
    if (error != ERROR_SUCCESS && error != ERROR_HANDLE_EOF) return errno_of(error);
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
    const DWORD error = awaited(handle, offset, &done, [&](OVERLAPPED* overlapped) {
      return ::WriteFile(handle, data, wanted, nullptr, overlapped);
    });
    if (error != ERROR_SUCCESS) return errno_of(error);
    if (done == 0) return EIO;
    data += done;
    length -= done;
    offset += done;
  }
  return 0;
}

int File::write_pieces_now(const WritePiece* pieces, size_t count, uint64_t offset) const {
  for (size_t i = 0; i < count; ++i) {
    const int error = write_now(pieces[i].data, pieces[i].length, offset);
    if (error != 0) return error;
    offset += pieces[i].length;
  }
  return 0;
}

int File::sync_now() const {
  // A handle that only reads may not ask for it, and has nothing to make durable.
  if (read_only_) return 0;
  return ::FlushFileBuffers(handle_of(descriptor_)) ? 0 : last_error();
}

int File::zero_range_now(uint64_t, uint64_t) const { return EOPNOTSUPP; }

int File::punch_now(uint64_t offset, uint64_t length) const {
  const HANDLE handle = handle_of(descriptor_);
  DWORD error = make_sparse(handle);
  if (error == ERROR_SUCCESS) {
    FILE_ZERO_DATA_INFORMATION range = {};
    range.FileOffset.QuadPart = static_cast<LONGLONG>(offset);
    range.BeyondFinalZero.QuadPart = static_cast<LONGLONG>(offset + length);
    DWORD none = 0;
    error = control(handle, FSCTL_SET_ZERO_DATA, &range, sizeof(range), nullptr, 0, &none);
  }
  // Some file systems call what they do not know a wrong parameter.
  return error == ERROR_INVALID_PARAMETER ? EOPNOTSUPP : errno_of(error);
}

int File::allocate_now(uint64_t, uint64_t) const { return EOPNOTSUPP; }

int File::truncate_now(uint64_t length) const {
  FILE_END_OF_FILE_INFO end;
  end.EndOfFile.QuadPart = static_cast<LONGLONG>(length);
  const HANDLE handle = handle_of(descriptor_);
  return ::SetFileInformationByHandle(handle, FileEndOfFileInfo, &end, sizeof(end)) ? 0 : last_error();
}

int File::extent(uint64_t offset, uint64_t* length, bool* data) const {
  uint64_t end = 0;
  const int length_error = this->length(&end);
  if (length_error != 0) return length_error;
  *length = offset < end ? end - offset : 0;
  *data = offset < end;
  if (offset >= end) return 0;
  FILE_ALLOCATED_RANGE_BUFFER asked = {};
  asked.FileOffset.QuadPart = static_cast<LONGLONG>(offset);
  asked.Length.QuadPart = static_cast<LONGLONG>(*length);
  FILE_ALLOCATED_RANGE_BUFFER first = {};
  DWORD got = 0;
  const DWORD error =
      control(handle_of(descriptor_), FSCTL_QUERY_ALLOCATED_RANGES, &asked, sizeof(asked), &first, sizeof(first), &got);
  // This file system cannot tell, so all is data.
  if (error != ERROR_SUCCESS && error != ERROR_MORE_DATA) return 0;
  if (got < sizeof(first)) {
    *data = false;
    return 0;
  }
  const auto begin = static_cast<uint64_t>(first.FileOffset.QuadPart);
  const uint64_t behind = begin + static_cast<uint64_t>(first.Length.QuadPart);
  *data = begin <= offset;
  const uint64_t next = *data ? behind : begin;
  if (next > offset) *length = std::min(*length, next - offset);
  return 0;
}

int File::lock_shared(uint64_t byte) const { return lock_byte(handle_of(descriptor_), kFirstLock + byte, 0); }

int File::unlock(uint64_t byte) const {
  const DWORD error = unlock_byte(handle_of(descriptor_), kFirstLock + byte);
  return error == ERROR_NOT_LOCKED ? 0 : errno_of(error);
}

// The system has no question for this. So the lock is taken for a moment, in the place of the shared one that this file
// may have there itself.
int File::test_exclusive(uint64_t byte, bool* free) const {
  const HANDLE handle = handle_of(descriptor_);
  *free = false;
  int error = lock_byte(handle, kTestByte, LOCKFILE_EXCLUSIVE_LOCK);
  for (int waited = 0; error == EAGAIN && waited < kMostTestMilliseconds; ++waited) {
    ::Sleep(1);
    error = lock_byte(handle, kTestByte, LOCKFILE_EXCLUSIVE_LOCK);
  }
  if (error != 0) return error == EAGAIN ? 0 : error;
  const bool is_mine = unlock_byte(handle, kFirstLock + byte) == ERROR_SUCCESS;
  const int taken = lock_byte(handle, kFirstLock + byte, LOCKFILE_EXCLUSIVE_LOCK);
  if (taken == 0) unlock_byte(handle, kFirstLock + byte);
  // Nobody can have taken it exclusively meanwhile, as he would have to hold the other byte.
  if (is_mine) error = lock_byte(handle, kFirstLock + byte, 0);
  unlock_byte(handle, kTestByte);
  if (error != 0) return error;
  *free = taken == 0;
  return taken == EAGAIN ? 0 : taken;
}

}  // namespace block_queue

#endif  // _WIN32
