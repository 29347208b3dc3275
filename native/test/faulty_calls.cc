// Preloaded into a process (LD_PRELOAD): makes system calls on one file fail, or transfer less than they are asked to,
// as the kernel may. For glibc on Linux. The environment variable FAULTY_FILE is the end of the file's path. The
// process arms a fault, and asks what has happened, by looking at paths that do not exist:
//   access("/faulty-calls/CALL/ERRNO/FROM/EVERY")  CALL: pread, pwrite (with the vectored ones), fdatasync, fallocate,
//       ftruncate. ERRNO 0: a part is transferred. FROM: the first call that is hit, from 1. EVERY: 0 only that one,
//       else every such a one from there on. Counts begin anew.
//   access("/faulty-calls-report")  writes "HIT SEEN" to the file FAULTY_REPORT: calls that were hit; all of that kind.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

enum Call { kNone, kRead, kWrite, kSync, kAllocate, kTruncate };

std::atomic<int> armed{kNone};
std::atomic<int> fault_errno{0};
std::atomic<long> first_hit{0};
std::atomic<long> every{0};
std::atomic<long> seen{0};
std::atomic<long> hit{0};

template <typename Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

bool is_the_file(int descriptor) {
  const char* const wanted = getenv("FAULTY_FILE");
  if (wanted == nullptr) return false;
  char link[64];
  char path[PATH_MAX];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof path);
  const size_t wanted_length = std::strlen(wanted);
  return length >= static_cast<ssize_t>(wanted_length) &&
         std::memcmp(path + length - wanted_length, wanted, wanted_length) == 0;
}

// Whether this call is to go wrong. Only the armed kind is counted.
bool strikes(Call call, int descriptor) {
  if (armed.load() != call || !is_the_file(descriptor)) return false;
  const long number = ++seen;
  const long past = number - first_hit;
  if (past < 0 || (every == 0 ? past > 0 : past % every != 0)) return false;
  ++hit;
  return true;
}

int failing() {
  errno = fault_errno;
  return -1;
}

// Of two equal pieces not just the first.
size_t part_of(size_t length) { return length > 2 ? length / 8 * 3 + 1 : length; }

// The first of the bytes of these pieces.
std::vector<iovec> part_of(const iovec* pieces, int count) {
  size_t left = 0;
  for (int i = 0; i < count; ++i) left += pieces[i].iov_len;
  left = part_of(left);
  std::vector<iovec> part;
  for (int i = 0; i < count && left > 0; ++i) {
    part.push_back({pieces[i].iov_base, pieces[i].iov_len < left ? pieces[i].iov_len : left});
    left -= part.back().iov_len;
  }
  return part;
}

Call call_named(const char* name) {
  if (std::strcmp(name, "pread") == 0) return kRead;
  if (std::strcmp(name, "pwrite") == 0) return kWrite;
  if (std::strcmp(name, "fdatasync") == 0) return kSync;
  if (std::strcmp(name, "fallocate") == 0) return kAllocate;
  if (std::strcmp(name, "ftruncate") == 0) return kTruncate;
  return kNone;
}

void obey(const char* path) {
  char name[16];
  int error = 0;
  long from = 0;
  long step = 0;
  if (std::sscanf(path, "/faulty-calls/%15[a-z]/%d/%ld/%ld", name, &error, &from, &step) == 4) {
    armed = kNone;
    fault_errno = error;
    first_hit = from;
    every = step;
    seen = 0;
    hit = 0;
    armed = call_named(name);
  } else if (std::strcmp(path, "/faulty-calls-report") == 0) {
    armed = kNone;
    FILE* const report = std::fopen(getenv("FAULTY_REPORT"), "w");
    if (report == nullptr) std::abort();
    std::fprintf(report, "%ld %ld\n", hit.load(), seen.load());
    std::fclose(report);
  }
}

template <typename Function, typename Bytes>
ssize_t transfer(const char* name, Call call, int descriptor, Bytes* bytes, size_t length, off64_t offset) {
  static const auto next = real<Function>(name);
  if (!strikes(call, descriptor)) return next(descriptor, bytes, length, offset);
  return fault_errno == 0 ? next(descriptor, bytes, part_of(length), offset) : failing();
}

template <typename Function>
ssize_t transfer_pieces(const char* name, Call call, int descriptor, const iovec* pieces, int count, off64_t offset) {
  static const auto next = real<Function>(name);
  if (!strikes(call, descriptor)) return next(descriptor, pieces, count, offset);
  if (fault_errno != 0) return failing();
  const std::vector<iovec> part = part_of(pieces, count);
  return next(descriptor, part.data(), static_cast<int>(part.size()), offset);
}

using Read = ssize_t (*)(int, void*, size_t, off64_t);
using Write = ssize_t (*)(int, const void*, size_t, off64_t);
using WritePieces = ssize_t (*)(int, const iovec*, int, off64_t);
using Truncate = int (*)(int, off64_t);
using Allocate = int (*)(int, int, off64_t, off64_t);
using Access = int (*)(const char*, int);
using Sync = int (*)(int);

}  // namespace

extern "C" {

ssize_t pread64(int fd, void* bytes, size_t length, off64_t offset) {
  return transfer<Read>("pread64", kRead, fd, bytes, length, offset);
}
ssize_t pread(int fd, void* bytes, size_t length, off_t offset) { return pread64(fd, bytes, length, offset); }

ssize_t pwrite64(int fd, const void* bytes, size_t length, off64_t offset) {
  return transfer<Write>("pwrite64", kWrite, fd, bytes, length, offset);
}
ssize_t pwrite(int fd, const void* bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }

ssize_t pwritev64(int fd, const iovec* pieces, int count, off64_t offset) {
  return transfer_pieces<WritePieces>("pwritev64", kWrite, fd, pieces, count, offset);
}
ssize_t pwritev(int fd, const iovec* pieces, int count, off_t offset) { return pwritev64(fd, pieces, count, offset); }

// Reads that must not wait: never served, so that all reads come by pread.
ssize_t preadv64v2(int, const iovec*, int, off64_t, int) {
  errno = EAGAIN;
  return -1;
}
ssize_t preadv2(int fd, const iovec* pieces, int count, off_t offset, int flags) {
  return preadv64v2(fd, pieces, count, offset, flags);
}

int fdatasync(int fd) {
  static const auto next = real<Sync>("fdatasync");
  return strikes(kSync, fd) ? failing() : next(fd);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
  static const auto next = real<Allocate>("fallocate64");
  return strikes(kAllocate, fd) ? failing() : next(fd, mode, offset, length);
}
int fallocate(int fd, int mode, off_t offset, off_t length) { return fallocate64(fd, mode, offset, length); }

int ftruncate64(int fd, off64_t length) {
  static const auto next = real<Truncate>("ftruncate64");
  return strikes(kTruncate, fd) ? failing() : next(fd, length);
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int access(const char* path, int mode) {
  static const auto next = real<Access>("access");
  if (std::strncmp(path, "/faulty-calls", 13) == 0) obey(path);
  return next(path, mode);
}
}
