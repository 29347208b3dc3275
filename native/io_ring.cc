#include "io_ring.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "queued_file.h"

namespace block_queue {

namespace {

bool is_aligned(const Job& job) {
  return reinterpret_cast<uintptr_t>(job.data) % job.file->file().memory_alignment() == 0;
}

}  // namespace

std::unique_ptr<IoRing> IoRing::make(napi_env env, IoPool* pool, CompletionQueue* completions,
                                     std::function<void()> ready) {
  auto uring = Uring::make();
  if (!uring) return nullptr;
  const int descriptor = uring->event();
  std::unique_ptr<IoRing> ring(new IoRing(std::move(uring), pool, completions));
  ring->watch_ = LoopWatch::make(env, descriptor, std::move(ready));
  if (!ring->watch_) return nullptr;
  return ring;
}

IoRing::IoRing(std::unique_ptr<Uring> uring, IoPool* pool, CompletionQueue* completions)
    : pool_(pool),
      completions_(completions),
      uring_(std::move(uring)),
      slots_(Uring::kMostRequests),
      free_(slots_.size()),
      buffers_(AlignedBytes::allocate(kBuffers * kLongestTogether, 4096)) {
  if (!buffers_) throw std::bad_alloc();
  for (uint32_t i = 0; i < slots_.size(); ++i) slots_[i].next = i + 1;
  for (uint32_t i = 0; i < kBuffers; ++i) free_buffers_.push_back(i);
  pieces_.reserve(slots_.size());
}

bool IoRing::submit(std::vector<Job>* jobs, bool may_wait) {
  const bool would_wait = may_wait && jobs->size() == 1 && should_wait(jobs->front());
  size_t left = 0;
  for (size_t first = 0, count = 0; first < jobs->size(); first += count) {
    Job* const begun = jobs->data() + first;
    count = QueuedFile::count_together(begun, jobs->size() - first, kLongestTogether);
    if (begin(begun, count)) continue;
    for (size_t i = 0; i < count; ++i, ++left) {
      if (left != first + i) (*jobs)[left] = std::move(begun[i]);
    }
  }
  jobs->resize(left);
  const bool wait = would_wait && under_way_ == 1;
  const Clock::time_point started = wait ? Clock::now() : Clock::time_point();
  uring_->submit(wait, [&](uint32_t slot) {
    --under_way_;
    while (slot != kNone) {
      const uint32_t next = slots_[slot].next;
      jobs->push_back(give_up(slot));
      slot = next;
    }
  });
  pieces_.clear();
  if (!wait) return false;
  take_results();
  count_waiting(started);
  return under_way_ == 0;
}

bool IoRing::should_wait(const Job& job) const {
  return job.file->waits_for(job) && waited_ < kLongestWaiting && Clock::now() >= no_waiting_before_;
}

// A disk, or a machine, that was slow once is about to be so again.
void IoRing::count_waiting(Clock::time_point since) {
  const Clock::time_point now = Clock::now();
  waited_ += now - since;
  if (now - since > kLongestWaiting) no_waiting_before_ = now + kPauseAfterLong * (now - since);
}

// false: they cannot go this way.
bool IoRing::begin(Job* jobs, size_t count) {
  if (count > free_ || !jobs[0].file->suits_ring(jobs[0])) return false;
  uint64_t length = 0;
  for (size_t i = 0; i < count; ++i) length += jobs[i].length;
  const bool is_copied = !std::all_of(jobs, jobs + count, is_aligned);
  if (is_copied && (length > kLongestTogether || free_buffers_.empty())) return false;

  const bool is_write = jobs[0].operation == Operation::kWrite;
  const auto descriptor = static_cast<int>(jobs[0].file->file().descriptor());
  const uint64_t offset = jobs[0].offset;
  const size_t first_piece = pieces_.size();
  for (size_t i = 0; i < count; ++i) pieces_.push_back({jobs[i].data, static_cast<size_t>(jobs[i].length)});
  const uint32_t first = keep(jobs, count);
  Slot& head = slots_[first];
  head.length = static_cast<uint32_t>(length);
  head.buffer = kNone;
  if (is_copied) {
    head.buffer = free_buffers_.back();
    free_buffers_.pop_back();
    uint8_t* to = buffer_at(head.buffer);
    for (size_t i = first_piece; is_write && i < pieces_.size(); to += pieces_[i++].length) {
      std::memcpy(to, pieces_[i].data, pieces_[i].length);
    }
    pieces_.resize(first_piece);
    pieces_.push_back({buffer_at(head.buffer), static_cast<size_t>(length)});
  }
  uring_->add({is_write, descriptor, &pieces_[first_piece], pieces_.size() - first_piece, offset, first});
  ++under_way_;
  return true;
}

// There are as many free. -> the first.
uint32_t IoRing::keep(Job* jobs, size_t count) {
  const uint32_t first = first_free_;
  uint32_t last = first;
  for (size_t i = 0; i < count; ++i) {
    last = first_free_;
    slots_[last].job = std::move(jobs[i]);
    first_free_ = slots_[last].next;
  }
  slots_[last].next = kNone;
  free_ -= count;
  return first;
}

Job IoRing::give_up(uint32_t slot) {
  Slot& freed = slots_[slot];
  if (freed.buffer != kNone) free_buffers_.push_back(std::exchange(freed.buffer, kNone));
  freed.next = std::exchange(first_free_, slot);
  ++free_;
  return std::exchange(freed.job, Job());
}

void IoRing::reap() {
  waited_ = {};
  uring_->collect(/*wait=*/false);
  take_results();
}

void IoRing::take_results() {
  Uring::Result result;
  while (uring_->take(&result)) end(result);
}

void IoRing::end(const Uring::Result& result) {
  --under_way_;
  const Slot& head = slots_[result.tag];
  const bool is_done = result.bytes >= 0 && static_cast<uint32_t>(result.bytes) == head.length;
  const uint8_t* from = head.buffer == kNone ? nullptr : buffer_at(head.buffer);
  for (uint32_t slot = result.tag; slot != kNone;) {
    const uint32_t next = slots_[slot].next;
    Job job = give_up(slot);
    slot = next;
    if (!is_done) {
      // The end of the file, an error, or a disk that wants to be waited for: the ordinary way finds out.
      pool_->submit(std::move(job));
      continue;
    }
    if (from != nullptr) {
      if (job.operation != Operation::kWrite) std::memcpy(job.data, from, static_cast<size_t>(job.length));
      from += job.length;
    }
    completions_->post(QueuedFile::performed(job), /*wake_now=*/false);
  }
}

void IoRing::finish() {
  watch_.reset();
  while (under_way_ > 0) {
    uring_->collect(/*wait=*/true);
    take_results();
  }
}

}  // namespace block_queue
