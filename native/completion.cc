#include "completion.h"

#include <algorithm>
#include <utility>

namespace block_queue {

namespace {

template <typename Item>
void move_front(std::vector<Item>* from, size_t most, std::vector<Item>* to) {
  to->clear();
  if (from->size() <= most) {
    std::swap(*from, *to);
    return;
  }
  const auto end = from->begin() + static_cast<ptrdiff_t>(most);
  to->assign(from->begin(), end);
  from->erase(from->begin(), end);
}

}  // namespace

CompletionQueue::CompletionQueue(Napi::Env env, std::function<void(Napi::Env)> deliver)
    : deliver_(std::move(deliver)),
      env_(env),
      function_(Function::New(env, "block queue", /*maxQueueSize=*/0, /*initialThreadCount=*/1, this)) {
  function_.Unref(env);
}

void CompletionQueue::post(const Completion& completion, bool wake_now) {
  std::unique_lock<std::mutex> lock(mutex_);
  ready_.push_back(completion);
  if (wake_now) wake(std::move(lock));
}

void CompletionQueue::post_progress(uint32_t file, const std::vector<Completion>& completions) {
  std::unique_lock<std::mutex> lock(mutex_);
  ready_.insert(ready_.end(), completions.begin(), completions.end());
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

void CompletionQueue::take(size_t most_completions, size_t most_files, std::vector<Completion>* completions,
                           std::vector<uint32_t>* files) {
  std::unique_lock<std::mutex> lock(mutex_);
  move_front(&ready_, most_completions, completions);
  move_front(&progressed_, most_files, files);
  wake_pending_ = false;
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
