// JavaScript thread of one environment only.
#ifndef BLOCK_QUEUE_BLOCK_QUEUE_H_
#define BLOCK_QUEUE_BLOCK_QUEUE_H_

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "environment.h"
#include "guard.h"
#include "queued_file.h"

namespace block_queue {

// The class `BlockQueue`: one file, as JavaScript holds it. See lib/native/types.ts. Data requests go by
// Environment::submit.
class BlockQueue : public GuardedWrap<BlockQueue> {
 public:
  // What of the queue's state JavaScript reads from a Float64Array, without a call.
  enum StateIndex : size_t { kDurableSection, kQueuedBytes, kQueuedNodes, kPoisoned, kStalled, kStateLength };
  // Flags of the constructor.
  enum OpenFlag : uint32_t {
    kReadOnly = 1,
    kDirect = 2,
    kCreate = 4,
    kRecord = 8,
    kRing = 16,
    kInlineWaits = 32,
    kInlineWrites = 64
  };

  static Napi::Function define(Napi::Env env);

  // (path, flags, policy, idleLimitMs, state): opens nothing yet.
  explicit BlockQueue(const Napi::CallbackInfo& info);
  ~BlockQueue() override;
  BlockQueue(const BlockQueue&) = delete;
  BlockQueue& operator=(const BlockQueue&) = delete;

  const std::shared_ptr<QueuedFile>& file() const { return file_; }
  // The queue has moved on: bring the state that JavaScript sees up to date.
  void refresh();

 private:
  Napi::Value number(const Napi::CallbackInfo& info);
  Napi::Value uses_ring(const Napi::CallbackInfo& info);
  Napi::Value geometry(const Napi::CallbackInfo& info);
  template <auto method>
  Napi::Value at_once(const Napi::CallbackInfo& info);
  Napi::Value enqueue(const Napi::CallbackInfo& info);
  Napi::Value section_after_data(const Napi::CallbackInfo& info);
  Napi::Value pending_section(const Napi::CallbackInfo& info);
  void drain(const Napi::CallbackInfo& info);
  Napi::Value lock(const Napi::CallbackInfo& info);
  void unlock(const Napi::CallbackInfo& info);
  void sync_with(const Napi::CallbackInfo& info);
  Napi::Value counters(const Napi::CallbackInfo& info);
  void note(const Napi::CallbackInfo& info);
  Napi::Value take_log(const Napi::CallbackInfo& info);

  bool check_open(Napi::Env env);
  void show(const QueueState& state);

  std::shared_ptr<Environment> environment_;
  std::shared_ptr<QueuedFile> file_;
  uint32_t number_ = 0;
  Napi::Reference<Napi::Float64Array> state_reference_;
  double* state_ = nullptr;
  bool is_moving_ = false;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_BLOCK_QUEUE_H_
