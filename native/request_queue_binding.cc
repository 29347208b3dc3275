#include "request_queue_binding.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "count.h"
#include "guard.h"
#include "request_queue.h"

namespace block_queue {

namespace {

// Larger than any page or sector of a disk: a larger number is a mistake of the caller.
constexpr uint64_t kLargestAlignment = uint64_t{1} << 20;
constexpr uint64_t kLargestErrno = 4095;

std::nullopt_t refuse(const Napi::CallbackInfo& info, const char* what) {
  Napi::TypeError::New(info.Env(), what).ThrowAsJavaScriptException();
  return std::nullopt;
}

// An argument that is an integer from 0 to 2^53 - 1. Otherwise a JavaScript exception is pending.
std::optional<uint64_t> integer_at(const Napi::CallbackInfo& info, size_t index, const char* what) {
  const auto count = count_of(info[index]);
  if (!count) return refuse(info, what);
  return count;
}

// An argument that is a Uint8Array (or Buffer) with at least one byte.
std::optional<Napi::Uint8Array> bytes_at(const Napi::CallbackInfo& info, size_t index, const char* what) {
  const Napi::Value value = info[index];
  if (!value.IsTypedArray()) return refuse(info, what);
  const napi_typedarray_type type = value.As<Napi::TypedArray>().TypedArrayType();
  if (type != napi_uint8_array) return refuse(info, what);
  const Napi::Uint8Array bytes = value.As<Napi::Uint8Array>();
  if (bytes.ElementLength() == 0 || bytes.Data() == nullptr) return refuse(info, what);
  return bytes;
}

Napi::Number number(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

Napi::Array to_js(Napi::Env env, const Waiters& finished) {
  Napi::Array array = Napi::Array::New(env, finished.size());
  uint32_t index = 0;
  for (const Waiter& waiter : finished) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("id", number(env, waiter.id));
    entry.Set("error", Napi::Number::New(env, waiter.error));
    array.Set(index++, entry);
  }
  return array;
}

Napi::Object to_js(Napi::Env env, const Node& node) {
  Napi::Uint8Array bytes = Napi::Uint8Array::New(env, node.bytes.size());
  std::copy_n(node.bytes.data(), node.bytes.size(), bytes.Data());
  Napi::Object entry = Napi::Object::New(env);
  entry.Set("offset", number(env, node.offset));
  entry.Set("bytes", bytes);
  entry.Set("section", number(env, node.section));
  return entry;
}

const char* name_of(Action::Kind kind) {
  switch (kind) {
    case Action::Kind::kWrite:
      return "write";
    case Action::Kind::kSync:
      return "sync";
    case Action::Kind::kIdle:
      break;
  }
  return "idle";
}

// Refuses whatever would break the pure queue's preconditions; TypeScript has good messages for what a user can get
// wrong.
class RequestQueueBinding : public GuardedWrap<RequestQueueBinding> {
 public:
  // policy: SyncPolicy as a number; idleLimitMs; memoryAlignment: bytes.
  explicit RequestQueueBinding(const Napi::CallbackInfo& info) : GuardedWrap<RequestQueueBinding>(info) {
    const auto policy = integer_at(info, 0, "policy is a number");
    if (!policy) return;
    const auto idle_limit_ms = integer_at(info, 1, "idleLimitMs is a count of milliseconds");
    if (!idle_limit_ms) return;
    const auto alignment = integer_at(info, 2, "memoryAlignment is a count of bytes");
    if (!alignment) return;
    if (*policy > static_cast<uint64_t>(SyncPolicy::kEveryWrite)) {
      refuse(info, "there is no such policy");
    } else if (*alignment == 0 || *alignment > kLargestAlignment || (*alignment & (*alignment - 1)) != 0) {
      refuse(info, "memoryAlignment is a power of two up to 1 MiB");
    } else {
      queue_ = std::make_unique<RequestQueue>(static_cast<SyncPolicy>(*policy), static_cast<size_t>(*alignment),
                                              *idle_limit_ms);
    }
  }

  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "RequestQueue",
                       {
                           guarded_method<&RequestQueueBinding::enqueue>("enqueue"),
                           guarded_method<&RequestQueueBinding::section_after_data>("sectionAfterData"),
                           guarded_method<&RequestQueueBinding::data_written>("dataWritten"),
                           guarded_method<&RequestQueueBinding::give_up>("giveUp"),
                           guarded_method<&RequestQueueBinding::flush>("flush"),
                           guarded_method<&RequestQueueBinding::await_durable>("awaitDurable"),
                           guarded_method<&RequestQueueBinding::drain>("drain"),
                           guarded_method<&RequestQueueBinding::next>("next"),
                           guarded_method<&RequestQueueBinding::deadline_ms>("deadlineMs"),
                           guarded_method<&RequestQueueBinding::written>("written"),
                           guarded_method<&RequestQueueBinding::synced>("synced"),
                           guarded_method<&RequestQueueBinding::overlay>("overlay"),
                           guarded_method<&RequestQueueBinding::overlaps>("overlaps"),
                           guarded_method<&RequestQueueBinding::pending_section>("pendingSection"),
                           guarded_method<&RequestQueueBinding::durable_section>("durableSection"),
                           guarded_method<&RequestQueueBinding::state>("state"),
                       });
  }

 private:
  // (bytes, offset, earliest, nowMs) -> section
  Napi::Value enqueue(const Napi::CallbackInfo& info) {
    const auto bytes = bytes_at(info, 0, "bytes is a Uint8Array that is not empty");
    if (!bytes) return {};
    const auto offset = integer_at(info, 1, "offset is a count of bytes");
    if (!offset) return {};
    const auto earliest = integer_at(info, 2, "earliest is a section");
    if (!earliest) return {};
    const auto now_ms = integer_at(info, 3, "nowMs is a count of milliseconds");
    if (!now_ms) return {};
    // So that a wrong number cannot use up the numbers: they have to stay exact in JavaScript.
    if (*earliest > queue_->highest_section() + 2) {
      refuse(info, "earliest is beyond every section that was ever answered");
      return {};
    }
    const Section section = queue_->enqueue(*offset, bytes->Data(), bytes->ElementLength(), *earliest, *now_ms);
    if (section == 0) {
      throw_out_of_memory(info.Env());
      return {};
    }
    return number(info.Env(), section);
  }

  Napi::Value section_after_data(const Napi::CallbackInfo& info) {
    return number(info.Env(), queue_->section_after_data());
  }

  void data_written(const Napi::CallbackInfo&) { queue_->data_written(); }

  // (errno) -> finished
  Napi::Value give_up(const Napi::CallbackInfo& info) {
    const auto error = integer_at(info, 0, "the reason is an errno");
    if (!error) return {};
    if (*error == 0 || *error > kLargestErrno) {
      refuse(info, "the reason is an errno");
      return {};
    }
    Waiters finished;
    queue_->give_up(static_cast<int>(*error), &finished);
    return to_js(info.Env(), finished);
  }

  // (id) -> finished
  Napi::Value flush(const Napi::CallbackInfo& info) {
    const auto id = integer_at(info, 0, "id is a count");
    if (!id) return {};
    Waiters finished;
    queue_->flush(*id, &finished);
    return to_js(info.Env(), finished);
  }

  // (id, section) -> finished
  Napi::Value await_durable(const Napi::CallbackInfo& info) {
    const auto id = integer_at(info, 0, "id is a count");
    if (!id) return {};
    const auto section = integer_at(info, 1, "section is a count");
    if (!section) return {};
    Waiters finished;
    queue_->await_durable(*id, *section, &finished);
    return to_js(info.Env(), finished);
  }

  void drain(const Napi::CallbackInfo&) { queue_->drain(); }

  // (nowMs) -> { kind, nodes }
  Napi::Value next(const Napi::CallbackInfo& info) {
    const auto now_ms = integer_at(info, 0, "nowMs is a count of milliseconds");
    if (!now_ms) return {};
    const Napi::Env env = info.Env();
    const Action action = queue_->next(*now_ms);
    Napi::Array nodes = Napi::Array::New(env);
    if (action.nodes != nullptr) {
      for (const auto& [offset, node] : *action.nodes) nodes.Set(nodes.Length(), to_js(env, *node));
    }
    Napi::Object answer = Napi::Object::New(env);
    answer.Set("kind", Napi::String::New(env, name_of(action.kind)));
    answer.Set("nodes", nodes);
    return answer;
  }

  Napi::Value deadline_ms(const Napi::CallbackInfo& info) {
    const auto deadline = queue_->deadline_ms();
    return deadline ? number(info.Env(), *deadline) : info.Env().Undefined();
  }

  // (errno or 0) -> finished
  Napi::Value written(const Napi::CallbackInfo& info) {
    const auto error = outcome_of(info, Action::Kind::kWrite);
    if (!error) return {};
    Waiters finished;
    queue_->written(*error, &finished);
    return to_js(info.Env(), finished);
  }

  // (errno or 0) -> finished
  Napi::Value synced(const Napi::CallbackInfo& info) {
    const auto error = outcome_of(info, Action::Kind::kSync);
    if (!error) return {};
    Waiters finished;
    queue_->synced(*error, &finished);
    return to_js(info.Env(), finished);
  }

  std::optional<int> outcome_of(const Napi::CallbackInfo& info, Action::Kind kind) {
    const auto error = integer_at(info, 0, "the outcome is 0 or an errno");
    if (!error) return std::nullopt;
    if (*error > kLargestErrno) return refuse(info, "the outcome is 0 or an errno");
    if (queue_->outstanding() != kind) return refuse(info, "next() has not handed out what this is the outcome of");
    return static_cast<int>(*error);
  }

  // (bytes, offset): the nodes that overlap the range are laid over bytes
  void overlay(const Napi::CallbackInfo& info) {
    const auto bytes = bytes_at(info, 0, "bytes is a Uint8Array that is not empty");
    if (!bytes) return;
    const auto offset = integer_at(info, 1, "offset is a count of bytes");
    if (!offset) return;
    Napi::Uint8Array target = *bytes;
    for (const auto& piece : queue_->collect_overlay(*offset, target.ElementLength())) {
      std::copy(piece.bytes.begin(), piece.bytes.end(), target.Data() + (piece.offset - *offset));
    }
  }

  // (offset, length) -> whether a node touches the range
  Napi::Value overlaps(const Napi::CallbackInfo& info) {
    const auto section = pending_section_of(info);
    return section ? Napi::Boolean::New(info.Env(), *section != 0) : Napi::Value();
  }

  // (offset, length) -> section or 0
  Napi::Value pending_section(const Napi::CallbackInfo& info) {
    const auto section = pending_section_of(info);
    return section ? number(info.Env(), *section) : Napi::Value();
  }

  std::optional<Section> pending_section_of(const Napi::CallbackInfo& info) {
    const auto offset = integer_at(info, 0, "offset is a count of bytes");
    if (!offset) return std::nullopt;
    const auto length = integer_at(info, 1, "length is a count of bytes");
    if (!length) return std::nullopt;
    return queue_->pending_section(*offset, *length);
  }

  Napi::Value durable_section(const Napi::CallbackInfo& info) { return number(info.Env(), queue_->durable_section()); }

  Napi::Value state(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const Counters& counters = queue_->counters();
    Napi::Object state = Napi::Object::New(env);
    state.Set("poisoned", Napi::Number::New(env, queue_->poisoned()));
    state.Set("stalled", Napi::Number::New(env, queue_->stalled()));
    state.Set("outstanding", Napi::String::New(env, name_of(queue_->outstanding())));
    state.Set("durableSection", number(env, queue_->durable_section()));
    state.Set("highestSection", number(env, queue_->highest_section()));
    state.Set("queuedBytes", number(env, queue_->queued_bytes()));
    state.Set("queuedNodes", number(env, queue_->queued_nodes()));
    state.Set("nodesQueued", number(env, counters.nodes_queued));
    state.Set("nodesCoalesced", number(env, counters.nodes_coalesced));
    state.Set("nodeBytesWritten", number(env, counters.node_bytes_written));
    state.Set("barriersIssued", number(env, counters.barriers_issued));
    state.Set("flushesAsked", number(env, counters.flushes_asked));
    state.Set("syncsIssued", number(env, counters.syncs_issued));
    state.Set("queuedBytesPeak", number(env, counters.queued_bytes_peak));
    state.Set("queuedNodesPeak", number(env, counters.queued_nodes_peak));
    return state;
  }

  std::unique_ptr<RequestQueue> queue_;
};

}  // namespace

Napi::Function define_request_queue(Napi::Env env) { return RequestQueueBinding::define(env); }

}  // namespace block_queue
