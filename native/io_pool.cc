#include "io_pool.h"

#include <errno.h>

#include <algorithm>
#include <array>
#include <exception>
#include <utility>

#include "queued_file.h"

namespace block_queue {

namespace {

// How long a result may wait for others: about what a wake-up of the event loop costs.
constexpr auto kGatherTime = std::chrono::microseconds(50);

}  // namespace

IoPool::IoPool(size_t most_threads, bool gather, CompletionQueue* completions)
    : most_threads_(most_threads), gather_(gather), completions_(completions) {
  threads_.reserve(most_threads);
}

void IoPool::make_room(size_t jobs) {
  const std::lock_guard<std::mutex> lock(mutex_);
  jobs_.reserve(jobs);
}

void IoPool::submit(std::vector<Job>* jobs) {
  submit(jobs->data(), jobs->size());
  jobs->clear();
}

void IoPool::submit(Job job) { submit(&job, 1); }

void IoPool::submit(Job* jobs, size_t count) {
  if (count == 0) return;
  std::unique_lock<std::mutex> lock(mutex_);
  if (stop_deadline_) return;
  start_threads(jobs_.size() + count);
  if (!threads_.empty()) {
    for (size_t i = 0; i < count; ++i) jobs_.push(std::move(jobs[i]));
    const size_t wanted = std::min(gather_ ? 1 : jobs_.size(), idle_threads_);
    lock.unlock();  // or those who are woken would have to wait for it
    for (size_t i = 0; i < wanted; ++i) work_.notify_one();
    return;
  }
  lock.unlock();
  // The system has no thread for us, and never had one. So no file is open yet: all these are to open one.
  for (size_t i = 0; i < count; ++i) completions_->post({jobs[i].request, EAGAIN, 0}, true);
}

void IoPool::start_threads(size_t wanted) {
  while (threads_.size() < most_threads_ && idle_threads_ + starting_threads_ < wanted) {
    try {
      threads_.emplace_back([this] { run(); });
    } catch (const std::exception&) {  // no thread, or no memory for it
      return;
    }
    ++starting_threads_;
  }
}

void IoPool::request_stop(Clock::time_point deadline) {
  const std::lock_guard<std::mutex> lock(mutex_);
  stop_deadline_ = deadline;
  work_.notify_all();
}

void IoPool::join() {
  std::vector<std::thread> threads;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    threads = std::move(threads_);
  }
  for (std::thread& thread : threads) thread.join();
  Ring<Job> dropped;  // outlives the lock: a job may be what keeps a file alive
  const std::lock_guard<std::mutex> lock(mutex_);
  std::swap(dropped, jobs_);
}

bool IoPool::is_over() const { return stop_deadline_ && (jobs_.empty() || Clock::now() >= *stop_deadline_); }

// One job, and those right behind it that continue it. With the lock held; there is one.
size_t IoPool::take(std::array<Job, kMostJobsTogether>* taken) {
  (*taken)[0] = jobs_.pop();
  size_t count = 1;
  uint64_t length = (*taken)[0].length;
  while (count < taken->size() && !jobs_.empty() && QueuedFile::continues((*taken)[count - 1], length, jobs_.front())) {
    (*taken)[count] = jobs_.pop();
    length += (*taken)[count++].length;
  }
  return count;
}

void IoPool::perform(const Job* jobs, size_t count, Scratch* scratch, Codec* codec) {
  const bool is_done = count > 1 && QueuedFile::perform_together(jobs, count, scratch);
  for (size_t i = 0; i < count; ++i) {
    const Completion completion =
        is_done ? Completion{jobs[i].request, 0, 0} : QueuedFile::perform(jobs[i], scratch, codec);
    // One word about all of them, with the last.
    const bool wake = !gather_ && (!is_done || i + 1 == count);
    if (completion.request != Job::kNobody) completions_->post(completion, wake);
  }
}

void IoPool::run() {
  Scratch scratch;
  Codec codec;
  std::array<Job, kMostJobsTogether> jobs;
  std::unique_lock<std::mutex> lock(mutex_);
  --starting_threads_;
  bool gathering = false;
  Clock::time_point gathering_since;
  for (;;) {
    if (gathering && (jobs_.empty() || Clock::now() - gathering_since >= kGatherTime)) {
      gathering = false;
      lock.unlock();
      completions_->wake();
      lock.lock();
    }
    if (jobs_.empty() && !stop_deadline_) {
      ++idle_threads_;
      work_.wait(lock, [this] { return !jobs_.empty() || stop_deadline_; });
      --idle_threads_;
    }
    if (is_over()) return;
    const size_t count = take(&jobs);
    // Of short requests the first thread often takes all: another one is woken for what it leaves.
    const bool wants_help = gather_ && !jobs_.empty() && idle_threads_ > 0;
    lock.unlock();
    if (wants_help) work_.notify_one();
    perform(jobs.data(), count, &scratch, &codec);
    std::fill_n(jobs.begin(), count, Job());  // a job may be what keeps a file alive
    if (gather_ && !gathering) {
      gathering = true;
      gathering_since = Clock::now();
    }
    lock.lock();
  }
}

}  // namespace block_queue
