#include "file.h"

#ifndef _WIN32

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "aligned_bytes.h"

#ifdef __linux__
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/syscall.h>
#endif
#ifdef __APPLE__
// What the kernel has had for long (the locks since 10.11), but not every SDK names.
#if __has_include(<sys/disk.h>)
#include <sys/disk.h>
#else
#define DKIOCGETBLOCKSIZE _IOR('d', 24, uint32_t)
#define DKIOCGETBLOCKCOUNT _IOR('d', 25, uint64_t)
#endif
#ifndef F_OFD_SETLK
#define F_OFD_SETLK 90
#define F_OFD_GETLK 92
#endif
#endif

namespace block_queue {

namespace {

// No page is larger where we run, and no disk asks for more.
constexpr size_t kLargestAlignment = 4096;

// Linux transfers at most 0x7ffff000 bytes in a call, and macOS refuses more than INT_MAX; this is aligned for all.
constexpr size_t kMostBytesPerCall = size_t{1} << 30;

template <typename Call>
auto retried(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

// "Not supported" has many names: the file system cannot, the kernel cannot, or this kind of file cannot.
int not_supported(int error) {
  return error == ENOTSUP || error == EOPNOTSUPP || error == ENOSYS || error == ENOTTY || error == ENODEV ? EOPNOTSUPP
                                                                                                          : error;
}

// 0 or an errno. The C library that release builds are linked with answers -1 without setting errno.
int status_of(int descriptor, struct stat* status) {
  errno = EIO;
  return ::fstat(descriptor, status) == 0 ? 0 : errno;
}

#ifdef __APPLE__
// The strongest of the syncs that the file system knows. One that it knows and that fails has failed.
int sync_to_the_medium(int descriptor) {
  // To the medium itself; else to the drive, which keeps the order of what comes later; else to the drive's cache.
  for (const int command : {F_FULLFSYNC, F_BARRIERFSYNC}) {
    if (retried([&] { return ::fcntl(descriptor, command); }) == 0) return 0;
    if (errno != EINVAL && not_supported(errno) != EOPNOTSUPP) return errno;
  }
  return retried([&] { return ::fsync(descriptor); }) == 0 ? 0 : errno;
}
#endif

#ifdef __linux__
int change_allocation(int descriptor, int mode, uint64_t offset, uint64_t length) {
  const int result =
      retried([&] { return ::fallocate(descriptor, mode, static_cast<off_t>(offset), static_cast<off_t>(length)); });
  return result == 0 ? 0 : not_supported(errno);
}
#endif

}  // namespace

File::~File() { close(); }

int File::open(const std::string& path, const OpenOptions& options) {
  // Without O_NONBLOCK the open of a FIFO waits for its other end. It means nothing to regular files and block devices.
  int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (options.read_only ? O_RDONLY : O_RDWR);
  if (options.create) flags |= O_CREAT | O_EXCL;
#ifdef O_DIRECT
  if (options.direct) flags |= O_DIRECT;
#endif
  descriptor_ = retried([&] { return ::open(path.c_str(), flags, 0666); });
  if (descriptor_ == -1) return errno;
  struct stat status;
  int error = status_of(descriptor_, &status);
  if (error == 0 && S_ISDIR(status.st_mode)) error = EISDIR;
  if (error == 0 && !S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) error = ENODEV;
  if (error == 0 && ::fcntl(descriptor_, F_SETFL, ::fcntl(descriptor_, F_GETFL) & ~O_NONBLOCK) == -1) error = errno;
  block_device_ = error == 0 && S_ISBLK(status.st_mode);
  direct_ = options.direct;
#ifdef __APPLE__
  // What is not whole pages would still go through the cache: find_alignment asks for those.
  if (error == 0 && direct_ && ::fcntl(descriptor_, F_NOCACHE, 1) == -1) error = EINVAL;
#endif
  if (error == 0 && direct_) error = find_alignment();
  if (error != 0) close();
  return error;
}

void File::close() {
  if (descriptor_ == -1) return;
#ifdef F_OFD_SETLK
  // A child process that is being started this moment has a copy of the descriptor, and with it the locks, until it has
  // become another program. Who opens the file again meanwhile must not be refused.
  struct flock everything = {};
  everything.l_type = F_UNLCK;
  everything.l_whence = SEEK_SET;
  ::fcntl(descriptor_, F_OFD_SETLK, &everything);
#endif
  // Not retried: the descriptor is gone also after EINTR, and its number may already be somebody else's.
  ::close(descriptor_);
  descriptor_ = -1;
}

int File::find_alignment() {
  memory_alignment_ = kLargestAlignment;
  offset_alignment_ = kLargestAlignment;
#ifdef __linux__
#ifdef STATX_DIOALIGN
  struct statx status;
  if (::statx(descriptor_, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
      (status.stx_mask & STATX_DIOALIGN) != 0) {
    if (status.stx_dio_offset_align == 0) return EINVAL;
    memory_alignment_ = std::max<size_t>(status.stx_dio_mem_align, 1);
    offset_alignment_ = status.stx_dio_offset_align;
    return 0;
  }
#endif
  int sector = 0;
  if (block_device_ && ::ioctl(descriptor_, BLKSSZGET, &sector) == 0 && sector > 0) {
    memory_alignment_ = static_cast<size_t>(sector);
    offset_alignment_ = static_cast<uint64_t>(sector);
    return 0;
  }
  constexpr size_t kSmallestAlignment = 512;
  // Ask by trying. A hole, or a file without anything in it, may accept what its blocks would not: then the largest
  // stands.
  uint64_t data_length = 0;
  bool data = false;
  if (extent(0, &data_length, &data) != 0 || !data || data_length < 2 * kLargestAlignment) return 0;
  AlignedBytes bytes = AlignedBytes::allocate(2 * kLargestAlignment, kLargestAlignment);
  if (!bytes) return ENOMEM;
  for (size_t alignment = kSmallestAlignment; alignment <= kLargestAlignment; alignment *= 2) {
    const ssize_t got = retried(
        [&] { return ::pread(descriptor_, bytes.data() + alignment, alignment, static_cast<off_t>(alignment)); });
    if (got == static_cast<ssize_t>(alignment)) {
      memory_alignment_ = alignment;
      offset_alignment_ = alignment;
      return 0;
    }
    if (got == -1 && errno != EINVAL) return errno;
  }
  return EINVAL;
#else
  return 0;
#endif
}

int File::length(uint64_t* length) const {
#ifdef __linux__
  if (block_device_) return ::ioctl(descriptor_, BLKGETSIZE64, length) == 0 ? 0 : errno;
#endif
#ifdef __APPLE__
  if (block_device_) {
    uint32_t block_bytes = 0;
    uint64_t block_count = 0;
    if (::ioctl(descriptor_, DKIOCGETBLOCKSIZE, &block_bytes) != 0) return errno;
    if (::ioctl(descriptor_, DKIOCGETBLOCKCOUNT, &block_count) != 0) return errno;
    *length = block_bytes * block_count;
    return 0;
  }
#endif
  struct stat status;
  const int error = status_of(descriptor_, &status);
  if (error != 0) return error;
  *length = static_cast<uint64_t>(status.st_size);
  return 0;
}

int File::read(uint8_t* data, size_t length, uint64_t offset) const {
  while (length > 0) {
    const size_t wanted = std::min(length, kMostBytesPerCall);
    const ssize_t got = retried([&] { return ::pread(descriptor_, data, wanted, static_cast<off_t>(offset)); });
    if (got == -1) return errno;
    data += got;
    length -= static_cast<size_t>(got);
    offset += static_cast<uint64_t>(got);
    // With O_DIRECT a short read of odd length is the end of the file, and going on from there would be refused.
    if (got == 0 || static_cast<uint64_t>(got) % offset_alignment_ != 0) break;
  }
  std::fill_n(data, length, uint8_t{0});
  return 0;
}

int File::read_pieces(const ReadPiece* pieces, size_t count, uint64_t offset) const {
  std::array<struct iovec, kMostPieces> vectors;
  size_t length = 0;
  for (size_t i = 0; i < count; ++i) {
    vectors[i] = {pieces[i].data, pieces[i].length};
    length += pieces[i].length;
  }
  const ssize_t got = retried(
      [&] { return ::preadv(descriptor_, vectors.data(), static_cast<int>(count), static_cast<off_t>(offset)); });
  if (got == -1) return errno;
  return got == static_cast<ssize_t>(length) ? 0 : ERANGE;
}

int File::read_at_once(uint8_t* data, size_t length, uint64_t offset) const {
#if defined(__linux__) && defined(SYS_preadv2) && defined(RWF_NOWAIT)
  struct iovec piece = {data, length};
  // Not every C library has it. The kernel takes the offset in two halves, and the first alone where all of it fits.
  const auto low = static_cast<unsigned long>(offset);         // NOLINT: the kernel's type
  const auto high = static_cast<unsigned long>(offset >> 32);  // NOLINT
  const auto got = ::syscall(SYS_preadv2, descriptor_, &piece, 1UL, low, high, RWF_NOWAIT);
  // A short read is the end of the cached part or of the file: the ordinary way finds out which.
  return got == static_cast<ssize_t>(length) ? 0 : EAGAIN;
#else
  (void)data, (void)length, (void)offset;
  return EAGAIN;
#endif
}

int File::write_now(const uint8_t* data, size_t length, uint64_t offset) const {
  while (length > 0) {
    const size_t wanted = std::min(length, kMostBytesPerCall);
    const ssize_t done = retried([&] { return ::pwrite(descriptor_, data, wanted, static_cast<off_t>(offset)); });
    if (done == -1) return errno;
    if (done == 0) return EIO;
    data += done;
    length -= static_cast<size_t>(done);
    offset += static_cast<uint64_t>(done);
  }
  return 0;
}

int File::write_pieces_now(const WritePiece* pieces, size_t count, uint64_t offset) const {
  if (count == 1) return write_now(pieces[0].data, pieces[0].length, offset);
  std::array<struct iovec, kMostPieces> left;
  for (size_t i = 0; i < count; ++i) left[i] = {const_cast<uint8_t*>(pieces[i].data), pieces[i].length};
  size_t first = 0;
  while (first < count) {
    const auto wanted = static_cast<int>(count - first);
    const ssize_t done =
        retried([&] { return ::pwritev(descriptor_, &left[first], wanted, static_cast<off_t>(offset)); });
    if (done == -1) return errno;
    if (done == 0) return EIO;
    offset += static_cast<uint64_t>(done);
    size_t consumed = static_cast<size_t>(done);
    while (first < count && consumed >= left[first].iov_len) consumed -= left[first++].iov_len;
    if (consumed > 0) {
      left[first].iov_base = static_cast<uint8_t*>(left[first].iov_base) + consumed;
      left[first].iov_len -= consumed;
    }
  }
  return 0;
}

int File::sync_now() const {
#ifdef __APPLE__
  return sync_to_the_medium(descriptor_);
#else
  return retried([&] { return ::fdatasync(descriptor_); }) == 0 ? 0 : errno;
#endif
}

int File::zero_range_now(uint64_t offset, uint64_t length) const {
#ifdef __linux__
  const int error = change_allocation(descriptor_, FALLOC_FL_ZERO_RANGE, offset, length);
  // A block device refuses what is not a multiple of its sectors.
  return block_device_ && error == EINVAL ? EOPNOTSUPP : error;
#else
  (void)offset, (void)length;
  return EOPNOTSUPP;
#endif
}

int File::punch_now(uint64_t offset, uint64_t length) const {
#ifdef __linux__
  const int error = change_allocation(descriptor_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  return block_device_ && error == EINVAL ? EOPNOTSUPP : error;
#elif defined(__APPLE__) && defined(F_PUNCHHOLE)
  struct fpunchhole hole = {};
  hole.fp_offset = static_cast<off_t>(offset);
  hole.fp_length = static_cast<off_t>(length);
  if (retried([&] { return ::fcntl(descriptor_, F_PUNCHHOLE, &hole); }) == 0) return 0;
  return errno == EINVAL ? EOPNOTSUPP : not_supported(errno);
#else
  (void)offset, (void)length;
  return EOPNOTSUPP;
#endif
}

int File::allocate_now(uint64_t offset, uint64_t length) const {
#ifdef __linux__
  return change_allocation(descriptor_, 0, offset, length);
#else
  (void)offset, (void)length;
  return EOPNOTSUPP;
#endif
}

int File::truncate_now(uint64_t length) const {
  if (block_device_) {
    // It has the length that it has: what ends within it has room, and nothing is cut off.
    uint64_t device = 0;
    const int error = this->length(&device);
    if (error != 0) return error;
    return length <= device ? 0 : ENOSPC;
  }
  return retried([&] { return ::ftruncate(descriptor_, static_cast<off_t>(length)); }) == 0 ? 0 : errno;
}

int File::extent(uint64_t offset, uint64_t* length, bool* data) const {
  uint64_t end = 0;
  const int error = this->length(&end);
  if (error != 0) return error;
  *length = offset < end ? end - offset : 0;
  *data = offset < end;
  if (offset >= end || block_device_) return 0;
    // APFS calls holes what was written a while ago: whoever skips those copies zeros. There all is data.
#if defined(SEEK_DATA) && defined(SEEK_HOLE) && !defined(__APPLE__)
  const off_t from = static_cast<off_t>(offset);
  const off_t next_data = ::lseek(descriptor_, from, SEEK_DATA);
  if (next_data == -1) {
    // ENXIO: no data from here to the end. Anything else: this file system cannot tell, so all is data.
    *data = errno != ENXIO;
    return 0;
  }
  if (next_data > from) {
    *data = false;
    *length = std::min<uint64_t>(*length, static_cast<uint64_t>(next_data - from));
    return 0;
  }
  const off_t next_hole = ::lseek(descriptor_, from, SEEK_HOLE);
  if (next_hole > from) *length = std::min<uint64_t>(*length, static_cast<uint64_t>(next_hole - from));
#endif
  return 0;
}

namespace {

#ifdef F_OFD_SETLK
int lock_byte(int descriptor, int command, int16_t type, uint64_t byte, struct flock* lock) {
  *lock = {};
  lock->l_type = type;
  lock->l_whence = SEEK_SET;
  lock->l_start = static_cast<off_t>(byte);
  lock->l_len = 1;
  if (retried([&] { return ::fcntl(descriptor, command, lock); }) == 0) return 0;
  if (errno == EACCES) return EAGAIN;
  // EINVAL: a kernel without OFD locks; ENOLCK: a file system (or its server) without any.
  return errno == EINVAL || errno == ENOLCK ? ENOTSUP : not_supported(errno);
}
#endif

}  // namespace

int File::lock_shared(uint64_t byte) const {
#ifdef F_OFD_SETLK
  struct flock lock;
  return lock_byte(descriptor_, F_OFD_SETLK, F_RDLCK, byte, &lock);
#else
  (void)byte;
  return ENOTSUP;
#endif
}

int File::unlock(uint64_t byte) const {
#ifdef F_OFD_SETLK
  struct flock lock;
  return lock_byte(descriptor_, F_OFD_SETLK, F_UNLCK, byte, &lock);
#else
  (void)byte;
  return ENOTSUP;
#endif
}

int File::test_exclusive(uint64_t byte, bool* free) const {
#ifdef F_OFD_SETLK
  struct flock lock;
  const int error = lock_byte(descriptor_, F_OFD_GETLK, F_WRLCK, byte, &lock);
  *free = error == 0 && lock.l_type == F_UNLCK;
  return error;
#else
  (void)byte, (void)free;
  return ENOTSUP;
#endif
}

}  // namespace block_queue

#endif  // !_WIN32
