#include "queued_file.h"

#include <errno.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <utility>

namespace block_queue {

namespace {

bool writes(Operation operation) { return operation == Operation::kWrite || operation == Operation::kWriteDurably; }

bool changes_file(Operation operation) {
  switch (operation) {
    case Operation::kWrite:
    case Operation::kWriteDurably:
    case Operation::kWriteZeroes:
    case Operation::kUnmapZeroes:
    case Operation::kPunch:
    case Operation::kAllocate:
    case Operation::kTruncate:
      return true;
    default:
      return false;
  }
}

Compression compression_of(Operation operation) {
  return operation == Operation::kReadZlib || operation == Operation::kPackZlib ? Compression::kZlib
                                                                                : Compression::kZstd;
}

void lay_over(const std::vector<RequestQueue::OverlayPiece>& overlay, const Job& job) {
  for (const RequestQueue::OverlayPiece& piece : overlay) {
    std::memcpy(job.data + (piece.offset - job.offset), piece.bytes.data(), piece.bytes.size());
  }
}

template <typename Piece>
std::array<Piece, kMostJobsTogether> pieces_of(const Job* jobs, size_t count) {
  std::array<Piece, kMostJobsTogether> pieces = {};
  for (size_t i = 0; i < count; ++i) pieces[i] = {jobs[i].data, static_cast<size_t>(jobs[i].length)};
  return pieces;
}

// A host that lets its writers wait once is about to do so again.
constexpr auto kLongWrite = std::chrono::milliseconds(2);
constexpr auto kPauseAfterLongWrite = std::chrono::seconds(1);

// To begin a request takes the longer the more memory it has. Bytes.
constexpr uint64_t kLongestByRing = uint64_t{8} << 20;

}  // namespace

QueuedFile::QueuedFile(uint32_t number, Options options, IoPool* pool, CompletionQueue* completions)
    : number_(number), options_(std::move(options)), pool_(pool), completions_(completions) {}

void QueuedFile::submit(Job job, std::vector<Job>* jobs_for_pool) {
  if (job.operation == Operation::kClose) close_begins();
  if (job.operation == Operation::kReadQueued) {
    // Before the file is read: a node that is written in between is then found in one place at least.
    job.overlay = worker_->collect_overlay(job.offset, job.length);
  }
  // At the same time as the bytes, as far as that needs no sync: one sync is to do for all.
  if (job.operation == Operation::kWriteDurably) worker_->write_ahead();
  const bool may_begin = !is_direct() || !changes_file(job.operation) || enter_gate(&job);
  if (may_begin) jobs_for_pool->push_back(std::move(job));
}

void QueuedFile::submit(Question* questions, size_t count) {
  Waiters finished;
  worker_->ask(questions, count, &finished);
  for (size_t i = 0; i < count; ++i) {
    const Question& question = questions[i];
    if (question.refused != 0) completions_->post({question.id, question.refused, 0}, true);
  }
  if (!finished.empty()) completions_->post_progress(number_, finished);
}

bool QueuedFile::perform_at_once(const Job& job) {
  if (is_direct()) return false;
  if (job.operation != Operation::kRead && job.operation != Operation::kReadQueued) return false;
  std::vector<RequestQueue::OverlayPiece> overlay;
  if (job.operation == Operation::kReadQueued) overlay = worker_->collect_overlay(job.offset, job.length);
  if (!read_at_once(job.data, job.length, job.offset)) return false;
  lay_over(overlay, job);
  return true;
}

bool QueuedFile::read_at_once(uint8_t* data, uint64_t length, uint64_t offset) {
  if (is_direct() || length > kLongestAtOnce) return false;
  return file_.read_at_once(data, static_cast<size_t>(length), offset) == 0;
}

bool QueuedFile::write_at_once(const uint8_t* data, uint64_t length, uint64_t offset) {
  if (is_direct() || length > kLongestAtOnce) return false;
  return write_on_this_thread([&] {
    const bool succeeded = file_.write(data, static_cast<size_t>(length), offset) == 0;
    changed(succeeded);
    return succeeded;
  });
}

bool QueuedFile::write_together_at_once(const Job* jobs, size_t count) {
  QueuedFile& self = *jobs[0].file;
  if (!self.options_.inline_writes || jobs[0].operation != Operation::kWrite) return false;
  if (count == 1) return self.write_at_once(jobs[0].data, jobs[0].length, jobs[0].offset);
  Scratch scratch;
  return self.write_on_this_thread([&] { return perform_together(jobs, count, &scratch); });
}

// write: -> whether it succeeded
template <typename Write>
bool QueuedFile::write_on_this_thread(Write write) {
  const Clock::time_point before = Clock::now();
  if (before < no_write_at_once_before_) return false;
  const bool succeeded = write();
  const Clock::time_point after = Clock::now();
  if (after - before > kLongWrite) no_write_at_once_before_ = after + kPauseAfterLongWrite;
  return succeeded;
}

Completion QueuedFile::perform(const Job& job, Scratch* scratch, Codec* codec) {
  QueuedFile& self = *job.file;
  Completion completion{job.request, 0, 0};
  switch (job.operation) {
    case Operation::kOpen:
      try {
        completion.error = self.open();
      } catch (const std::bad_alloc&) {
        self.file_.close();
        completion.error = ENOMEM;
      }
      break;
    case Operation::kClose:
      self.close();
      break;
    case Operation::kRead:
    case Operation::kReadQueued:
      completion.error = read_any(self.file_, scratch, job.data, static_cast<size_t>(job.length), job.offset);
      if (completion.error == 0) lay_over(job.overlay, job);
      break;
    case Operation::kReadZlib:
    case Operation::kReadZstd: {
      int64_t unpacked = 0;
      completion.error = self.read_packed(job, scratch, codec, &unpacked);
      completion.value = static_cast<double>(unpacked);
      break;
    }
    case Operation::kPackZlib:
    case Operation::kPackZstd: {
      int64_t packed = 0;
      completion.error = codec->pack(compression_of(job.operation), job.source, static_cast<size_t>(job.length),
                                     job.data, job.room, &packed);
      completion.value = static_cast<double>(packed);
      break;
    }
    case Operation::kExtent: {
      uint64_t length = 0;
      bool data = false;
      completion.error = self.file_.extent(job.offset, &length, &data);
      completion.value = data ? static_cast<double>(length) : -static_cast<double>(length);
      break;
    }
    default:
      completion.error = self.change(job, scratch);
      self.changed(completion.error == 0);
      self.leave_gate(job, completion.error == 0);
      if (job.operation == Operation::kWriteDurably && completion.error == 0) {
        Question question{job.request, std::nullopt};
        self.submit(&question, 1);
        completion.request = Job::kNobody;
      }
  }
  return completion;
}

// Neighbours at the end of a batch are a sequential reader's or writer's. Longer ones gain nothing by it, and would
// lose that several are under way at the same time.
bool QueuedFile::continues(const Job& last, uint64_t length, const Job& next) {
  if (next.operation != last.operation || next.file != last.file || next.offset != last.offset + last.length) {
    return false;
  }
  if (last.operation != Operation::kRead && last.operation != Operation::kWrite) return false;
  if (next.length > kLongestAtOnce || length + next.length > Scratch::kBytes) return false;
  const uint64_t unit = last.file->file_.offset_alignment();
  return last.offset % unit == 0 && last.length % unit == 0 && next.length % unit == 0;
}

size_t QueuedFile::count_together(const Job* jobs, size_t count, uint64_t longest) {
  size_t together = 1;
  uint64_t length = jobs[0].length;
  while (together < std::min(count, kMostJobsTogether) && length + jobs[together].length <= longest &&
         continues(jobs[together - 1], length, jobs[together])) {
    length += jobs[together++].length;
  }
  return together;
}

bool QueuedFile::perform_together(const Job* jobs, size_t count, Scratch* scratch) {
  QueuedFile& self = *jobs[0].file;
  if (jobs[0].operation == Operation::kRead) {
    const auto pieces = pieces_of<ReadPiece>(jobs, count);
    return read_together(self.file_, scratch, pieces.data(), count, jobs[0].offset) == 0;
  }
  const auto pieces = pieces_of<WritePiece>(jobs, count);
  if (write_together(self.file_, scratch, pieces.data(), count, jobs[0].offset) != 0) return false;
  self.changed(true);
  for (size_t i = 0; i < count; ++i) self.leave_gate(jobs[i], true);
  return true;
}

bool QueuedFile::suits_ring(const Job& job) const {
  if (!options_.ring || job.length == 0 || job.length > kLongestByRing) return false;
  const uint64_t unit = file_.offset_alignment();
  if (job.offset % unit != 0 || job.length % unit != 0) return false;
  return job.operation == Operation::kRead || job.operation == Operation::kReadQueued ||
         job.operation == Operation::kWrite;
}

Completion QueuedFile::performed(const Job& job) {
  if (job.operation == Operation::kWrite) {
    job.file->changed(true);
    job.file->leave_gate(job, true);
  } else {
    lay_over(job.overlay, job);
  }
  return {job.request, 0, 0};
}

// ---- The file ----

int QueuedFile::open() {
  if (options_.record) file_.log_to(&log_);
  int error = file_.open(options_.path, options_.open);
  if (error == 0) error = file_.length(&length_at_open_);
  if (error != 0) {
    file_.close();
    return error;
  }
  certain_length_ = length_at_open_;
  Worker::Callbacks callbacks;
  callbacks.write = [this](uint64_t offset, Section section, const WritePiece* nodes, size_t count) {
    return write_nodes(offset, section, nodes, count);
  };
  callbacks.sync = [this] { return sync(); };
  callbacks.progress = [this](const Waiters& finished) { completions_->post_progress(number_, finished); };
  gate_.make_room(1);
  worker_ = std::make_unique<Worker>(options_.policy, file_.memory_alignment(), options_.idle_limit_ms, callbacks);
  opened_.store(true, std::memory_order_release);
  return 0;
}

void QueuedFile::close() {
  // Longer than any disk takes: nodes that nobody waits for any more are still written.
  request_stop(Clock::now() + std::chrono::hours(24));
  join();
  std::shared_ptr<QueuedFile> data;  // outlives the lock
  const std::lock_guard<std::mutex> lock(pair_mutex_);
  std::swap(data, data_);
  file_.close();
}

void QueuedFile::sync_with(std::shared_ptr<QueuedFile> data) {
  data->synced_by_ = weak_from_this();
  const std::lock_guard<std::mutex> lock(pair_mutex_);
  data_ = std::move(data);
}

// The queue hears of it before JavaScript does: what is queued because of it must find its sync still to come.
void QueuedFile::changed(bool succeeded) {
  has_changed_ = true;
  if (!succeeded) return;
  worker_->data_written();
  if (const std::shared_ptr<QueuedFile> other = synced_by_.lock()) other->worker_->data_written();
}

// On the queue's thread. Data first: without it a mapping that is durable would lead to what was there before.
int QueuedFile::sync() {
  std::shared_ptr<QueuedFile> data;
  {
    const std::lock_guard<std::mutex> lock(pair_mutex_);
    data = data_;
  }
  if (!data) {
    ++syncs_;
    return file_.sync();
  }
  const int error = data->sync_changes();
  return error != 0 ? error : sync_changes();
}

int QueuedFile::sync_changes() {
  const std::lock_guard<std::mutex> lock(pair_mutex_);
  if (!has_changed_.exchange(false)) return 0;
  // Closed before its time: what it held may not be durable, and nobody may be told that it is.
  if (!file_.is_open()) return EBADF;
  ++syncs_;
  return file_.sync();
}

int QueuedFile::read_packed(const Job& job, Scratch* scratch, Codec* codec, int64_t* unpacked) const {
  AlignedBytes packed = AlignedBytes::allocate(static_cast<size_t>(job.length), 4096);
  if (!packed) return ENOMEM;
  const int error = read_any(file_, scratch, packed.data(), packed.size(), job.offset);
  if (error != 0) return error;
  return codec->unpack(compression_of(job.operation), packed.data(), packed.size(), job.data, job.room, unpacked);
}

int QueuedFile::change(const Job& job, Scratch* scratch) {
  switch (job.operation) {
    case Operation::kWrite:
    case Operation::kWriteDurably:
      return write_any(file_, scratch, job.data, static_cast<size_t>(job.length), job.offset);
    case Operation::kWriteZeroes:
    case Operation::kUnmapZeroes:
      return write_zeroes(job, scratch);
    case Operation::kPunch: {
      const int error = file_.punch(job.offset, job.length);
      return error == EOPNOTSUPP ? 0 : error;
    }
    case Operation::kAllocate:
      return allocate(job, scratch);
    case Operation::kTruncate:
      return file_.truncate(job.offset);
    default:
      return EINVAL;
  }
}

int QueuedFile::write_zeroes(const Job& job, Scratch* scratch) {
  if (job.operation == Operation::kUnmapZeroes) {
    const int error = file_.punch(job.offset, job.length);
    if (error == 0) return extend(job.offset + job.length, scratch);
    if (error != EOPNOTSUPP) return error;
  }
  int error = file_.zero_range(job.offset, job.length);
  if (error != EOPNOTSUPP) return error;
  // Some file systems (tmpfs) can do both halves, but not both at once.
  error = file_.punch(job.offset, job.length);
  if (error == 0) error = file_.allocate(job.offset, job.length);
  return error == EOPNOTSUPP ? write_zero_bytes(file_, scratch, job.offset, job.length) : error;
}

int QueuedFile::allocate(const Job& job, Scratch* scratch) {
  const int error = file_.allocate(job.offset, job.length);
  return error == EOPNOTSUPP ? extend(job.offset + job.length, scratch) : error;
}

// Never by truncate: a write that extends the file further at the same time would be cut off.
int QueuedFile::extend(uint64_t end, Scratch* scratch) {
  uint64_t length = 0;
  int error = file_.length(&length);
  if (error != 0 || length >= end) return error;
  error = file_.allocate(end - 1, 1);
  return error == EOPNOTSUPP ? write_zero_bytes(file_, scratch, end - 1, 1) : error;
}

// On the queue's thread.
int QueuedFile::write_nodes(uint64_t offset, Section section, const WritePiece* nodes, size_t count) {
  const int error = write_nodes_now(offset, section, nodes, count);
  has_changed_ = true;
  return error;
}

int QueuedFile::write_nodes_now(uint64_t offset, Section section, const WritePiece* nodes, size_t count) {
  if (!file_.direct()) return file_.write_pieces(nodes, count, offset, section);

  uint64_t end = offset;
  for (size_t i = 0; i < count; ++i) end += nodes[i].length;
  std::unique_lock<std::mutex> lock(gate_mutex_);
  const uint64_t ticket = ++last_ticket_;
  if (!gate_.enter(ticket, {offset, end, false})) {
    waiting_nodes_ = ticket;
    admitted_.wait(lock, [&] { return gate_abandoned_ || waiting_nodes_ == 0; });
    if (gate_abandoned_) return ECANCELED;
  }
  lock.unlock();
  const int error = file_.write_pieces(nodes, count, offset, section);
  lock.lock();
  if (error == 0 && truncations_ == 0) certain_length_ = std::max(certain_length_, end);
  leave_gate(ticket);
  return error;
}

// ---- The gate ----

WriteSpan QueuedFile::span_of(const Job& job) {
  if (job.operation == Operation::kTruncate) return {0, WriteSpan::kToTheEnd, true};
  const uint64_t unit = file_.offset_alignment();
  const uint64_t begin = job.offset - job.offset % unit;
  const uint64_t rest = (job.offset + job.length) % unit;
  const uint64_t end = job.offset + job.length + (rest == 0 ? 0 : unit - rest);
  const bool is_odd = begin != job.offset || rest != 0;
  // What ends within a unit past the end of the file makes it longer than it may be and cuts it again; and what only
  // has to make it longer may have to write the last byte.
  const bool moves_end = end > certain_length_ && (is_odd || !writes(job.operation));
  return {begin, moves_end ? WriteSpan::kToTheEnd : end, is_odd || moves_end};
}

// Whether the job may go to the pool now; if not it is kept. Throws std::bad_alloc, with nothing changed.
bool QueuedFile::enter_gate(Job* job) {
  const std::lock_guard<std::mutex> lock(gate_mutex_);
  gate_.make_room(2);  // one of them for the queue's thread
  make_room(&waiting_jobs_, 1);
  job->ticket = ++last_ticket_;
  if (job->operation == Operation::kTruncate) {
    ++truncations_;
    certain_length_ = std::min(certain_length_, job->offset);
  }
  if (gate_.enter(job->ticket, span_of(*job))) return true;
  waiting_jobs_.push_back(std::move(*job));
  return false;
}

void QueuedFile::leave_gate(const Job& job, bool succeeded) {
  if (job.ticket == 0) return;
  const std::lock_guard<std::mutex> lock(gate_mutex_);
  if (job.operation == Operation::kTruncate) --truncations_;
  if (succeeded && job.operation != Operation::kPunch && truncations_ == 0) {
    certain_length_ = std::max(certain_length_, job.offset + job.length);
  }
  leave_gate(job.ticket);
}

// With the lock held.
void QueuedFile::leave_gate(uint64_t ticket) {
  gate_.leave(ticket, [this](uint64_t admitted) {
    if (admitted == waiting_nodes_) {
      waiting_nodes_ = 0;
      admitted_.notify_all();
      return;
    }
    const auto job = std::lower_bound(waiting_jobs_.begin(), waiting_jobs_.end(), admitted,
                                      [](const Job& one, uint64_t other) { return one.ticket < other; });
    if (job == waiting_jobs_.end() || job->ticket != admitted) return;
    pool_->submit(std::move(*job));
    waiting_jobs_.erase(job);
  });
}

// ---- The end ----

void QueuedFile::request_stop(Clock::time_point deadline) {
  if (was_opened()) worker_->request_stop(deadline);
}

void QueuedFile::abandon_gate() {
  std::vector<Job> dropped;  // outlives the lock: a job may be what keeps this file alive
  const std::lock_guard<std::mutex> lock(gate_mutex_);
  gate_abandoned_ = true;
  std::swap(dropped, waiting_jobs_);
  admitted_.notify_all();
}

void QueuedFile::join() {
  if (was_opened()) worker_->join();
}

}  // namespace block_queue
