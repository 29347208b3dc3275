#include "uring.h"

#include <errno.h>

#if defined(__linux__) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#endif

#include <cstring>
#include <utility>

namespace block_queue {

// Headers of a kernel that is older than what is asked for here know less; a struct iovec is a ReadPiece.
#if defined(__linux__) && defined(IORING_SETUP_DEFER_TASKRUN) && defined(__NR_io_uring_setup)

namespace {

static_assert(sizeof(struct iovec) == sizeof(ReadPiece) &&
                  offsetof(struct iovec, iov_len) == offsetof(ReadPiece, length),
              "pieces go to the kernel as they are");

int enter(int descriptor, uint32_t submitted, uint32_t awaited, uint32_t flags) {
  for (;;) {
    const long taken =
        ::syscall(__NR_io_uring_enter, descriptor, submitted, awaited, flags, nullptr, static_cast<size_t>(0));
    if (taken >= 0 || errno != EINTR) return static_cast<int>(taken);
  }
}

uint32_t* number_at(void* memory, uint32_t place) {
  return reinterpret_cast<uint32_t*>(static_cast<uint8_t*>(memory) + place);
}

struct io_uring_sqe* submission_at(void* submissions, uint32_t index) {
  return static_cast<struct io_uring_sqe*>(submissions) + index;
}

}  // namespace

std::unique_ptr<Uring> Uring::make() {
  std::unique_ptr<Uring> ring(new Uring());
  ring->mappings_.reserve(3);
  if (!ring->set_up()) return nullptr;
  return ring;
}

bool Uring::set_up() {
  struct io_uring_params params = {};
  // Results are put down when this thread asks for them, not whenever it is about to do something else; one request
  // that cannot be begun does not keep those behind it. The kernel notes whether there are more to put down.
  params.flags =
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG;
  descriptor_ = static_cast<int>(::syscall(__NR_io_uring_setup, kMostRequests, &params));
  if (descriptor_ < 0) return false;
  constexpr uint32_t needed = IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_NODROP;
  if ((params.features & needed) != needed) return false;

  void* requests = nullptr;
  void* results = nullptr;
  if (!map(params.sq_off.array + params.sq_entries * sizeof(uint32_t), IORING_OFF_SQ_RING, &requests) ||
      !map(params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING, &results) ||
      !map(params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES, &submissions_)) {
    return false;
  }
  submission_tail_ = number_at(requests, params.sq_off.tail);
  submission_flags_ = number_at(requests, params.sq_off.flags);
  submission_mask_ = *number_at(requests, params.sq_off.ring_mask);
  completion_head_ = number_at(results, params.cq_off.head);
  completion_tail_ = number_at(results, params.cq_off.tail);
  completion_mask_ = *number_at(results, params.cq_off.ring_mask);
  completions_ = static_cast<uint8_t*>(results) + params.cq_off.cqes;
  // The n-th place in line is always the n-th entry.
  for (uint32_t i = 0; i < params.sq_entries; ++i) number_at(requests, params.sq_off.array)[i] = i;
  return set_up_event();
}

// The ring's own descriptor is of no use for this: it does not become readable by results that have not been put down.
bool Uring::set_up_event() {
  event_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_ < 0) return false;
  return ::syscall(__NR_io_uring_register, descriptor_, IORING_REGISTER_EVENTFD, &event_, 1) == 0;
}

bool Uring::map(size_t size, int64_t place, void** memory) {
  *memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor_, place);
  if (*memory == MAP_FAILED) return false;
  mappings_.push_back({*memory, size});
  return true;
}

Uring::~Uring() {
  for (const Mapping& mapping : mappings_) ::munmap(mapping.memory, mapping.size);
  if (descriptor_ >= 0) ::close(descriptor_);
  if (event_ >= 0) ::close(event_);
}

void Uring::add(const Request& request) {
  const uint32_t tail = *submission_tail_;
  struct io_uring_sqe* const entry = submission_at(submissions_, tail & submission_mask_);
  std::memset(entry, 0, sizeof(*entry));
  entry->fd = request.descriptor;
  entry->off = request.offset;
  entry->user_data = request.tag;
  if (request.count == 1) {
    entry->opcode = request.is_write ? IORING_OP_WRITE : IORING_OP_READ;
    entry->addr = reinterpret_cast<uintptr_t>(request.pieces->data);
    entry->len = static_cast<uint32_t>(request.pieces->length);
  } else {
    entry->opcode = request.is_write ? IORING_OP_WRITEV : IORING_OP_READV;
    entry->addr = reinterpret_cast<uintptr_t>(request.pieces);
    entry->len = static_cast<uint32_t>(request.count);
  }
  __atomic_store_n(submission_tail_, tail + 1, __ATOMIC_RELEASE);
  ++added_;
}

uint32_t Uring::begin_added(bool wait) {
  while (added_ > 0) {
    const int taken = enter(descriptor_, added_, wait ? 1 : 0, wait ? IORING_ENTER_GETEVENTS : 0);
    if (taken <= 0) break;  // EAGAIN: no memory for it
    added_ -= static_cast<uint32_t>(taken);
  }
  return added_;
}

// The last one in line, which the kernel looks at during a submission only.
uint32_t Uring::take_back() {
  --added_;
  const uint32_t tail = *submission_tail_ - 1;
  __atomic_store_n(submission_tail_, tail, __ATOMIC_RELEASE);
  return static_cast<uint32_t>(submission_at(submissions_, tail & submission_mask_)->user_data);
}

void Uring::collect(bool wait) {
  // The kernel makes the event readable when a request is over and once more when its result is put down. The latter is
  // taken away again, or each request would wake this thread twice. What was over in between, and whose wake-up went
  // with it, has its note.
  uint32_t awaited = wait ? 1 : 0;
  do {
    enter(descriptor_, 0, std::exchange(awaited, 0), IORING_ENTER_GETEVENTS);
    uint64_t count = 0;
    const ssize_t got = ::read(event_, &count, sizeof(count));
    (void)got;  // nothing, if that was readable before
  } while ((__atomic_load_n(submission_flags_, __ATOMIC_ACQUIRE) & IORING_SQ_TASKRUN) != 0);
}

bool Uring::take(Result* result) {
  const uint32_t head = *completion_head_;
  if (head == __atomic_load_n(completion_tail_, __ATOMIC_ACQUIRE)) return false;
  const auto& entry = static_cast<const struct io_uring_cqe*>(completions_)[head & completion_mask_];
  *result = {static_cast<uint32_t>(entry.user_data), entry.res};
  __atomic_store_n(completion_head_, head + 1, __ATOMIC_RELEASE);
  return true;
}

#else

std::unique_ptr<Uring> Uring::make() { return nullptr; }
Uring::~Uring() = default;
void Uring::add(const Request&) {}
uint32_t Uring::begin_added(bool) { return 0; }
uint32_t Uring::take_back() { return 0; }
void Uring::collect(bool) {}
bool Uring::take(Result*) { return false; }

#endif

}  // namespace block_queue
