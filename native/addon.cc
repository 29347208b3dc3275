#include <napi.h>

#include <cmath>

#include "block_queue.h"
#include "codec.h"
#include "count.h"
#include "environment.h"
#include "guard.h"
#include "job.h"
#include "large_pages.h"
#include "queued_file.h"
#include "request_queue_binding.h"
#include "word_run.h"

namespace {

using block_queue::BlockQueue;
using block_queue::Codec;
using block_queue::Compression;
using block_queue::count_of;
using block_queue::Environment;
using block_queue::guarded;
using block_queue::Operation;
using block_queue::QueuedFile;
using block_queue::SyncPolicy;

// Compared with lib/native/addon.ts at load: a binary left over from another version is refused, not believed.
constexpr int kAbi = 12;

template <typename Value>
void set(Napi::Object* object, const char* name, Value value) {
  object->Set(name, Napi::Number::New(object->Env(), static_cast<double>(value)));
}

// The numbers that go over the boundary stand in C++ only.
Napi::Object constants(Napi::Env env) {
  Napi::Object operations = Napi::Object::New(env);
  set(&operations, "open", Operation::kOpen);
  set(&operations, "close", Operation::kClose);
  set(&operations, "read", Operation::kRead);
  set(&operations, "readQueued", Operation::kReadQueued);
  set(&operations, "readZlib", Operation::kReadZlib);
  set(&operations, "readZstd", Operation::kReadZstd);
  set(&operations, "packZlib", Operation::kPackZlib);
  set(&operations, "packZstd", Operation::kPackZstd);
  set(&operations, "write", Operation::kWrite);
  set(&operations, "writeDurably", Operation::kWriteDurably);
  set(&operations, "writeZeroes", Operation::kWriteZeroes);
  set(&operations, "unmapZeroes", Operation::kUnmapZeroes);
  set(&operations, "punch", Operation::kPunch);
  set(&operations, "allocate", Operation::kAllocate);
  set(&operations, "truncate", Operation::kTruncate);
  set(&operations, "extent", Operation::kExtent);
  set(&operations, "flush", Operation::kFlush);
  set(&operations, "durable", Operation::kDurable);

  Napi::Object policies = Napi::Object::New(env);
  set(&policies, "never", SyncPolicy::kNever);
  set(&policies, "flush", SyncPolicy::kOnFlush);
  set(&policies, "write", SyncPolicy::kEveryWrite);

  Napi::Object flags = Napi::Object::New(env);
  set(&flags, "readOnly", BlockQueue::kReadOnly);
  set(&flags, "direct", BlockQueue::kDirect);
  set(&flags, "create", BlockQueue::kCreate);
  set(&flags, "record", BlockQueue::kRecord);
  set(&flags, "ring", BlockQueue::kRing);
  set(&flags, "inlineWaits", BlockQueue::kInlineWaits);
  set(&flags, "inlineWrites", BlockQueue::kInlineWrites);

  Napi::Object state = Napi::Object::New(env);
  set(&state, "durableSection", BlockQueue::kDurableSection);
  set(&state, "queuedBytes", BlockQueue::kQueuedBytes);
  set(&state, "queuedNodes", BlockQueue::kQueuedNodes);
  set(&state, "poisoned", BlockQueue::kPoisoned);
  set(&state, "stalled", BlockQueue::kStalled);
  set(&state, "length", BlockQueue::kStateLength);

  Napi::Object all = Napi::Object::New(env);
  all.Set("operations", operations);
  all.Set("policies", policies);
  all.Set("flags", flags);
  all.Set("state", state);
  set(&all, "numbersPerRequest", Environment::kNumbersPerRequest);
  set(&all, "numbersPerCompletion", Environment::kNumbersPerCompletion);
  set(&all, "mostCompletions", Environment::kMostCompletions);
  set(&all, "mostFiles", Environment::kMostFiles);
  set(&all, "mostAtOnce", Environment::kMostAtOnce);
  set(&all, "longestAtOnce", QueuedFile::kLongestAtOnce);
  return all;
}

// -> whether there is a library for it. Only asked for when it is needed: it may have to be loaded.
template <Compression type>
Napi::Value has_codec(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Codec::has(type));
}

Napi::Value start(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return Environment::of(info.Env())->start(info); });
}

Napi::Value submit(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return Environment::of(info.Env())->submit(info); });
}

void shut_down(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] { Environment::of(info.Env())->shut_down(); });
}

// (bytes, alignment) -> how many bytes the memory begins behind a multiple of alignment
Napi::Value misalignment(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const double alignment = info[1].IsNumber() ? info[1].As<Napi::Number>().DoubleValue() : 0;
  if (!info[0].IsTypedArray() || !(alignment >= 1 && alignment <= 1 << 21) || std::floor(alignment) != alignment) {
    Napi::TypeError::New(env, "misalignment(bytes, alignment) takes a Uint8Array and a count")
        .ThrowAsJavaScriptException();
    return {};
  }
  void* data = nullptr;
  napi_get_typedarray_info(env, info[0], nullptr, nullptr, &data, nullptr, nullptr);
  return Napi::Number::New(env,
                           static_cast<double>(reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(alignment)));
}

// (bytes)
Napi::Value use_large_pages(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsTypedArray()) {
    Napi::TypeError::New(env, "useLargePages(bytes) takes a Uint8Array").ThrowAsJavaScriptException();
    return {};
  }
  void* data = nullptr;
  napi_get_typedarray_info(env, info[0], nullptr, nullptr, &data, nullptr, nullptr);
  block_queue::use_large_pages(data, info[0].As<Napi::TypedArray>().ByteLength());
  return {};
}

// (bytes, at, most, step) -> how many words, from byte `at` on, are each `step` more than the one before
Napi::Value word_run(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto at = count_of(info[1]);
  const auto most = count_of(info[2]);
  const auto step = count_of(info[3]);
  size_t length = 0;
  void* data = nullptr;
  const bool is_memory = info[0].IsTypedArray();
  if (is_memory) napi_get_typedarray_info(env, info[0], nullptr, &length, &data, nullptr, nullptr);
  if (!is_memory || !at || !most || !step || *at > length || *most > (length - *at) / sizeof *step) {
    Napi::TypeError::New(env, "wordRun(bytes, at, most, step) takes a Uint8Array, what lies in it, and a count")
        .ThrowAsJavaScriptException();
    return {};
  }
  return Napi::Number::New(
      env, static_cast<double>(block_queue::word_run(static_cast<const uint8_t*>(data) + *at, *most, *step)));
}

Napi::Object define(Napi::Env env, Napi::Object exports) {
  exports.Set("abi", kAbi);
  exports.Set("constants", constants(env));
  exports.Set("RequestQueue", block_queue::define_request_queue(env));
  exports.Set("BlockQueue", BlockQueue::define(env));
  Napi::Object codecs = Napi::Object::New(env);
  codecs.Set("zlib", Napi::Function::New<has_codec<Compression::kZlib>>(env, "zlib"));
  codecs.Set("zstd", Napi::Function::New<has_codec<Compression::kZstd>>(env, "zstd"));
  exports.Set("codecs", codecs);
  exports.Set("start", Napi::Function::New<start>(env, "start"));
  exports.Set("submit", Napi::Function::New<submit>(env, "submit"));
  exports.Set("shutDown", Napi::Function::New<shut_down>(env, "shutDown"));
  exports.Set("misalignment", Napi::Function::New<misalignment>(env, "misalignment"));
  exports.Set("useLargePages", Napi::Function::New<use_large_pages>(env, "useLargePages"));
  exports.Set("wordRun", Napi::Function::New<word_run>(env, "wordRun"));
  return exports;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  return guarded(env, [&] { return define(env, exports); });
}

}  // namespace

NODE_API_MODULE(qcow2, init)
