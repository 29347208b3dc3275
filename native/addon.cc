#include <napi.h>

#include "request_queue_binding.h"

namespace {

// Compared with lib/native/addon.ts at load: a binary left over from another version is refused, not believed.
constexpr int kAbi = 1;

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("abi", kAbi);
  exports.Set("RequestQueue", block_queue::define_request_queue(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(qcow2, init)
