#include "io_pool.h"

#include <errno.h>

#include <algorithm>
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
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stop_deadline_) return;
    start_threads(jobs_.size() + count);
    if (!threads_.empty()) {
      for (size_t i = 0; i < count; ++i) jobs_.push(std::move(jobs[i]));
      const size_t wanted = std::min(jobs_.size(), idle_threads_);
      for (size_t i = 0; i < wanted; ++i) work_.notify_one();
      return;
    }
  }
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

void IoPool::run() {
  Scratch scratch;
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
    {
      const Job job = jobs_.pop();
      lock.unlock();
      const Completion completion = QueuedFile::perform(job, &scratch);
      if (job.request != Job::kNobody) completions_->post(completion, !gather_);
    }
    if (gather_ && !gathering) {
      gathering = true;
      gathering_since = Clock::now();
    }
    lock.lock();
  }
}

}  // namespace block_queue
