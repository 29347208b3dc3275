#include "block_queue.h"

#include <errno.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "count.h"

namespace block_queue {

namespace {

void refuse(Napi::Env env, const char* what) { Napi::TypeError::New(env, what).ThrowAsJavaScriptException(); }

std::optional<uint64_t> count_at(const Napi::CallbackInfo& info, size_t index) { return count_of(info[index]); }

struct Bytes {
  uint8_t* data;
  size_t length;
};

std::optional<Bytes> bytes_at(const Napi::CallbackInfo& info, size_t index) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(info.Env(), info[index], &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array) {
    return std::nullopt;
  }
  return Bytes{static_cast<uint8_t*>(data), length};
}

std::optional<std::vector<uint64_t>> counts_at(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsArray()) return std::nullopt;
  const Napi::Array array = info[index].As<Napi::Array>();
  std::vector<uint64_t> counts;
  counts.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const auto count = count_of(array.Get(i));
    if (!count) return std::nullopt;
    counts.push_back(*count);
  }
  return counts;
}

Napi::Number number_of(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

// Lock held bytes, then test: two who come at once may both fail, but never both succeed.
// Answers 0 and the byte that somebody else holds, if one does; or an errno. `added`: those that are locked now.
int lock_and_test(const File& file, const std::vector<uint64_t>& held, const std::vector<uint64_t>& tested,
                  std::vector<uint64_t>* added, std::optional<uint64_t>* conflict) {
  for (const uint64_t byte : held) {
    const int error = file.lock_shared(byte);
    if (error == EAGAIN) *conflict = byte;
    if (error != 0) return error == EAGAIN ? 0 : error;
    added->push_back(byte);
  }
  for (const uint64_t byte : tested) {
    bool free = false;
    const int error = file.test_exclusive(byte, &free);
    if (error != 0) return error;
    if (!free) {
      *conflict = byte;
      return 0;
    }
  }
  return 0;
}

}  // namespace

Napi::Function BlockQueue::define(Napi::Env env) {
  return DefineClass(env, "BlockQueue",
                     {
                         guarded_accessor<&BlockQueue::number>("number"),
                         guarded_accessor<&BlockQueue::uses_ring>("usesRing"),
                         guarded_method<&BlockQueue::geometry>("geometry"),
                         guarded_method<&BlockQueue::at_once<&QueuedFile::read_at_once>>("readAtOnce"),
                         guarded_method<&BlockQueue::at_once<&QueuedFile::write_at_once>>("writeAtOnce"),
                         guarded_method<&BlockQueue::enqueue>("enqueue"),
                         guarded_method<&BlockQueue::section_after_data>("sectionAfterData"),
                         guarded_method<&BlockQueue::pending_section>("pendingSection"),
                         guarded_method<&BlockQueue::drain>("drain"),
                         guarded_method<&BlockQueue::lock>("lock"),
                         guarded_method<&BlockQueue::unlock>("unlock"),
                         guarded_method<&BlockQueue::sync_with>("syncWith"),
                         guarded_method<&BlockQueue::counters>("counters"),
                         guarded_method<&BlockQueue::note>("note"),
                         guarded_method<&BlockQueue::take_log>("takeLog"),
                     });
}

BlockQueue::BlockQueue(const Napi::CallbackInfo& info) : GuardedWrap<BlockQueue>(info) {
  const Napi::Env env = info.Env();
  const auto flags = count_at(info, 1);
  const auto policy = count_at(info, 2);
  const auto idle_limit_ms = count_at(info, 3);
  if (!info[0].IsString() || !flags || !policy || *policy > static_cast<uint64_t>(SyncPolicy::kEveryWrite) ||
      !idle_limit_ms || !info[4].IsTypedArray() ||
      info[4].As<Napi::TypedArray>().TypedArrayType() != napi_float64_array ||
      info[4].As<Napi::TypedArray>().ElementLength() < kStateLength) {
    refuse(env, "new BlockQueue(path, flags, policy, idleLimitMs, state) takes a string, three counts and an array");
    return;
  }
  Napi::Float64Array state = info[4].As<Napi::Float64Array>();
  state_reference_ = Napi::Persistent(state);
  state_ = state.Data();
  QueuedFile::Options options;
  options.path = info[0].As<Napi::String>().Utf8Value();
  options.open.read_only = (*flags & kReadOnly) != 0;
  options.open.direct = (*flags & kDirect) != 0;
  options.open.create = (*flags & kCreate) != 0;
  options.record = (*flags & kRecord) != 0;
  options.inline_waits = (*flags & kInlineWaits) != 0;
  options.inline_writes = (*flags & kInlineWrites) != 0;
  options.policy = static_cast<SyncPolicy>(*policy);
  options.idle_limit_ms = *idle_limit_ms;
  environment_ = Environment::of(env);
  // A log is told of the beginning and the end of a write by whoever calls the system.
  const bool may_use_ring = (*flags & kRing) != 0 && options.open.direct && !options.record;
  options.ring = may_use_ring && environment_->has_ring(env);
  file_ = environment_->add(this, std::move(options), &number_);
}

// Collected without close(), as a rule: what is queued is still written, on another thread.
BlockQueue::~BlockQueue() {
  if (!file_) return;
  if (is_moving_) environment_->count_moving(-1);
  environment_->remove(number_);
  environment_->close_unasked(std::move(file_));
}

Napi::Value BlockQueue::number(const Napi::CallbackInfo& info) { return number_of(info.Env(), number_); }

Napi::Value BlockQueue::uses_ring(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), file_->uses_ring());
}

Napi::Value BlockQueue::geometry(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!check_open(env)) return {};
  Napi::Object geometry = Napi::Object::New(env);
  geometry.Set("memoryAlignment", number_of(env, file_->file().memory_alignment()));
  geometry.Set("offsetAlignment", number_of(env, file_->file().offset_alignment()));
  geometry.Set("length", number_of(env, file_->length_at_open()));
  geometry.Set("isDevice", Napi::Boolean::New(env, file_->file().block_device()));
  return geometry;
}

// (bytes, offset) -> whether it is done
template <auto method>
Napi::Value BlockQueue::at_once(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!check_open(env)) return {};
  const auto bytes = bytes_at(info, 0);
  const auto offset = count_at(info, 1);
  if (!bytes || !offset) {
    refuse(env, "readAtOnce and writeAtOnce(bytes, offset) take a Uint8Array and a count");
    return {};
  }
  return Napi::Boolean::New(env, ((*file_).*method)(bytes->data, bytes->length, *offset));
}

Napi::Value BlockQueue::enqueue(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!check_open(env)) return {};
  const auto bytes = bytes_at(info, 0);
  const auto offset = count_at(info, 1);
  const auto earliest = count_at(info, 2);
  if (!bytes || bytes->length == 0 || !offset || !earliest) {
    refuse(env, "enqueue(bytes, offset, earliest) takes a Uint8Array that is not empty and two counts");
    return {};
  }
  const uint64_t alignment = file_->file().offset_alignment();
  if (*offset % alignment != 0 || bytes->length % alignment != 0) {
    refuse(env, "a node consists of whole units of the file's alignment");
    return {};
  }
  QueueState state;
  const Section section = file_->worker().enqueue(*offset, bytes->data, bytes->length, *earliest, &state);
  if (section == Worker::kNoSuchSection) {
    refuse(env, "earliest is beyond every section that was ever answered");
    return {};
  }
  show(state);
  if (section == 0) {
    throw_out_of_memory(env);
    return {};
  }
  return number_of(env, section);
}

Napi::Value BlockQueue::section_after_data(const Napi::CallbackInfo& info) {
  if (!check_open(info.Env())) return {};
  return number_of(info.Env(), file_->worker().section_after_data());
}

Napi::Value BlockQueue::pending_section(const Napi::CallbackInfo& info) {
  if (!check_open(info.Env())) return {};
  const auto offset = count_at(info, 0);
  const auto length = count_at(info, 1);
  if (!offset || !length) {
    refuse(info.Env(), "pendingSection(offset, length) takes two counts");
    return {};
  }
  return number_of(info.Env(), file_->worker().pending_section(*offset, *length));
}

void BlockQueue::drain(const Napi::CallbackInfo& info) {
  if (!check_open(info.Env())) return;
  if (!file_->worker().drain()) return throw_out_of_memory(info.Env());
  refresh();
}

// (held, tested) -> undefined, or the first byte that somebody else holds, or -errno
Napi::Value BlockQueue::lock(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!check_open(env)) return {};
  auto held = counts_at(info, 0);
  const auto tested = counts_at(info, 1);
  if (!held || !tested) {
    refuse(env, "lock(held, tested) takes two arrays of counts");
    return {};
  }
  // All memory first: a lock that is held and not known would never be given back.
  std::set<uint64_t> locked = file_->locked_bytes;
  held->erase(std::remove_if(held->begin(), held->end(), [&](uint64_t byte) { return !locked.insert(byte).second; }),
              held->end());
  std::vector<uint64_t> added;
  added.reserve(held->size());
  std::optional<uint64_t> conflict;
  const int error = lock_and_test(file_->file(), *held, *tested, &added, &conflict);
  if (error == 0 && !conflict) {
    std::swap(file_->locked_bytes, locked);
    return env.Undefined();
  }
  for (const uint64_t byte : added) file_->file().unlock(byte);
  return conflict ? number_of(env, *conflict) : Napi::Number::New(env, -error);
}

void BlockQueue::unlock(const Napi::CallbackInfo& info) {
  if (!check_open(info.Env())) return;
  if (!info[0].IsArray()) return refuse(info.Env(), "unlock(held) takes an array of counts");
  // One by one, for this needs no memory.
  const Napi::Array held = info[0].As<Napi::Array>();
  for (uint32_t i = 0; i < held.Length(); ++i) {
    const auto byte = count_of(held.Get(i));
    if (!byte) return refuse(info.Env(), "unlock(held) takes an array of counts");
    if (file_->locked_bytes.erase(*byte) != 0) file_->file().unlock(*byte);
  }
}

// (number): of another file, open and not changed yet.
void BlockQueue::sync_with(const Napi::CallbackInfo& info) {
  if (!check_open(info.Env())) return;
  const auto number = count_at(info, 0);
  std::shared_ptr<QueuedFile> data = number ? environment_->file(*number) : nullptr;
  if (!data || data == file_ || !data->is_open()) {
    return refuse(info.Env(), "syncWith(number) takes the number of another file that is open");
  }
  file_->sync_with(std::move(data));
}

Napi::Value BlockQueue::counters(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!check_open(env)) return {};
  const WorkerCounters counters = file_->worker().counters();
  Napi::Object answer = Napi::Object::New(env);
  answer.Set("nodesQueued", number_of(env, counters.queue.nodes_queued));
  answer.Set("nodesCoalesced", number_of(env, counters.queue.nodes_coalesced));
  answer.Set("nodesMerged", number_of(env, counters.nodes_merged));
  answer.Set("nodeBytesWritten", number_of(env, counters.queue.node_bytes_written));
  answer.Set("barriersIssued", number_of(env, counters.queue.barriers_issued));
  answer.Set("flushesAsked", number_of(env, counters.queue.flushes_asked));
  answer.Set("syncsIssued", number_of(env, file_->syncs()));
  answer.Set("queuedBytesPeak", number_of(env, counters.queue.queued_bytes_peak));
  answer.Set("queuedNodesPeak", number_of(env, counters.queue.queued_nodes_peak));
  Napi::Array histogram = Napi::Array::New(env, counters.sync_microseconds.size());
  for (size_t i = 0; i < counters.sync_microseconds.size(); ++i) {
    histogram.Set(static_cast<uint32_t>(i), number_of(env, counters.sync_microseconds[i]));
  }
  answer.Set("syncMicrosecondsHistogram", histogram);
  return answer;
}

void BlockQueue::note(const Napi::CallbackInfo& info) {
  const auto id = count_at(info, 0);
  if (!id) return refuse(info.Env(), "note(id) takes a count");
  file_->log().note(*id);
}

// Also of a file that is closed.
Napi::Value BlockQueue::take_log(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::vector<IoEvent> events = file_->log().take();
  Napi::Array answer = Napi::Array::New(env, events.size());
  for (size_t i = 0; i < events.size(); ++i) {
    const IoEvent& event = events[i];
    Napi::Object object = Napi::Object::New(env);
    object.Set("type", number_of(env, static_cast<uint64_t>(event.type)));
    object.Set("id", number_of(env, event.id));
    if (event.type == IoEvent::Type::kSubmitted) {
      object.Set("kind", number_of(env, static_cast<uint64_t>(event.kind)));
      object.Set("offset", number_of(env, event.offset));
      object.Set("length", number_of(env, event.length));
      object.Set("section", number_of(env, event.section));
      Napi::Uint8Array bytes = Napi::Uint8Array::New(env, event.bytes.size());
      std::copy(event.bytes.begin(), event.bytes.end(), bytes.Data());
      object.Set("bytes", bytes);
    }
    object.Set("error", Napi::Number::New(env, event.error));
    answer.Set(static_cast<uint32_t>(i), object);
  }
  return answer;
}

bool BlockQueue::check_open(Napi::Env env) {
  if (file_->is_open()) return true;
  refuse(env, "the file is not open");
  return false;
}

void BlockQueue::refresh() {
  if (file_->was_opened()) show(file_->worker().state());
}

void BlockQueue::show(const QueueState& state) {
  state_[kDurableSection] = static_cast<double>(state.durable_section);
  state_[kQueuedBytes] = static_cast<double>(state.queued_bytes);
  state_[kQueuedNodes] = static_cast<double>(state.queued_nodes);
  state_[kPoisoned] = state.poisoned;
  state_[kStalled] = state.stalled;
  if (state.will_move == is_moving_) return;
  is_moving_ = state.will_move;
  environment_->count_moving(is_moving_ ? 1 : -1);
}

}  // namespace block_queue
