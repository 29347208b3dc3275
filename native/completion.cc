#include "completion.h"

#include <algorithm>
#include <utility>

namespace block_queue {

CompletionQueue::CompletionQueue(Napi::Env env, std::function<void(Napi::Env)> deliver)
    : deliver_(std::move(deliver)),
      env_(env),
      function_(Function::New(env, "block queue", /*maxQueueSize=*/0, /*initialThreadCount=*/1, this)) {
  function_.Unref(env);
}

void CompletionQueue::make_room(size_t completions, size_t files) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ready_.reserve(completions);
  // Beside those of files that exist there can be some of files that do not any more.
  block_queue::make_room(&progressed_, files);
}

void CompletionQueue::post(const Completion& completion, bool wake_now) {
  std::unique_lock<std::mutex> lock(mutex_);
  ready_.push(completion);
  if (wake_now) wake(std::move(lock));
}

void CompletionQueue::post_progress(uint32_t file, const Waiters& finished) {
  std::unique_lock<std::mutex> lock(mutex_);
  for (const Waiter& waiter : finished) ready_.push({waiter.id, waiter.error, 0});
  if (std::find(progressed_.begin(), progressed_.end(), file) == progressed_.end()) progressed_.push_back(file);
  wake(std::move(lock));
}

void CompletionQueue::wake() { wake(std::unique_lock<std::mutex>(mutex_)); }

void CompletionQueue::wake(std::unique_lock<std::mutex> lock) {
  if (wake_pending_ || (ready_.empty() && progressed_.empty())) return;
  wake_pending_ = true;
  lock.unlock();
  function_.NonBlockingCall();
}

void CompletionQueue::take(size_t most_completions, size_t most_files, bool unasked,
                           std::vector<Completion>* completions, std::vector<uint32_t>* files) {
  std::unique_lock<std::mutex> lock(mutex_);
  completions->clear();
  while (!ready_.empty() && completions->size() < most_completions) completions->push_back(ready_.pop());
  const auto end = progressed_.begin() + static_cast<ptrdiff_t>(std::min(progressed_.size(), most_files));
  files->assign(progressed_.begin(), end);
  progressed_.erase(progressed_.begin(), end);
  if (!unasked) wake_pending_ = false;
  wake(std::move(lock));
}

void CompletionQueue::hold(bool held) {
  if (closed_ || held == held_) return;
  held_ = held;
  if (held) {
    function_.Ref(env_);
  } else {
    function_.Unref(env_);
  }
}

void CompletionQueue::close() {
  if (std::exchange(closed_, true)) return;
  function_.Abort();
}

void CompletionQueue::call_js(Napi::Env env, Napi::Function, CompletionQueue* queue, void*) {
  if (env == nullptr || queue->closed_) return;
  queue->deliver_(env);
}

}  // namespace block_queue
