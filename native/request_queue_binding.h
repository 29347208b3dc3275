// Called on the JavaScript thread only.
#ifndef BLOCK_QUEUE_REQUEST_QUEUE_BINDING_H_
#define BLOCK_QUEUE_REQUEST_QUEUE_BINDING_H_

#include <napi.h>

namespace block_queue {

// The class `RequestQueue`: the pure queue, for a device that is simulated in JavaScript. See lib/native/addon.ts.
Napi::Function define_request_queue(Napi::Env env);

}  // namespace block_queue

#endif  // BLOCK_QUEUE_REQUEST_QUEUE_BINDING_H_
