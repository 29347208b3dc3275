#include "loop_watch.h"

#if defined(__linux__) && __has_include(<uv.h>)
#define BLOCK_QUEUE_HAS_UV
#include <uv.h>  // of Node's own headers: types only

#include "process_library.h"
#endif

#include <utility>

namespace block_queue {

#ifdef BLOCK_QUEUE_HAS_UV

namespace {

// Libuv as the process has it. Nothing is linked: a host may have none.
struct Libuv {
  decltype(&::uv_poll_init) init = nullptr;
  decltype(&::uv_poll_start) start = nullptr;
  decltype(&::uv_close) close = nullptr;
  decltype(&::uv_unref) unref = nullptr;
  decltype(&::uv_handle_size) size = nullptr;
  bool is_whole = false;
};

Libuv find_libuv() {
  Libuv uv;
  ProcessLibrary library;
  uv.is_whole = library.find("uv_poll_init", &uv.init) && library.find("uv_poll_start", &uv.start) &&
                library.find("uv_close", &uv.close) && library.find("uv_unref", &uv.unref) &&
                library.find("uv_handle_size", &uv.size);
  return uv;
}

}  // namespace

struct LoopWatch::Handle {
  uv_poll_t poll = {};
  Libuv uv;
  std::function<void()> ready;
  LoopWatch* owner = nullptr;
  // Without it the environment could end before the loop has let go of the handle.
  napi_async_cleanup_hook_handle hook = nullptr;
  bool is_closing = false;

  uv_handle_t* base() { return reinterpret_cast<uv_handle_t*>(&poll); }

  void close() {
    if (std::exchange(is_closing, true)) return;
    uv.close(base(), [](uv_handle_t* closed) {
      const std::unique_ptr<Handle> handle(static_cast<Handle*>(closed->data));
      if (handle->owner != nullptr) handle->owner->handle_ = nullptr;
      if (handle->hook != nullptr) napi_remove_async_cleanup_hook(handle->hook);
    });
  }
};

std::unique_ptr<LoopWatch> LoopWatch::make(napi_env env, int descriptor, std::function<void()> ready) {
  std::unique_ptr<LoopWatch> watch(new LoopWatch());
  auto handle = std::make_unique<Handle>();
  handle->uv = find_libuv();
  handle->ready = std::move(ready);
  handle->owner = watch.get();
  uv_loop_s* loop = nullptr;
  if (!handle->uv.is_whole || handle->uv.size(UV_POLL) != sizeof(handle->poll)) return nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return nullptr;
  if (handle->uv.init(loop, &handle->poll, descriptor) != 0) return nullptr;
  handle->poll.data = handle.get();
  Handle* const kept = watch->handle_ = handle.release();
  kept->uv.unref(kept->base());
  const auto end = [](napi_async_cleanup_hook_handle, void* data) { static_cast<Handle*>(data)->close(); };
  if (napi_add_async_cleanup_hook(env, end, kept, &kept->hook) != napi_ok) return nullptr;
  const auto call = [](uv_poll_t* poll, int, int) { static_cast<Handle*>(poll->data)->ready(); };
  if (kept->uv.start(&kept->poll, UV_READABLE, call) != 0) return nullptr;
  return watch;
}

LoopWatch::~LoopWatch() {
  if (handle_ == nullptr) return;
  handle_->owner = nullptr;
  handle_->close();
}

#else

std::unique_ptr<LoopWatch> LoopWatch::make(napi_env, int, std::function<void()>) { return nullptr; }
LoopWatch::~LoopWatch() = default;

#endif

}  // namespace block_queue
