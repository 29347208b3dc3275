// JavaScript thread of one environment only.
#ifndef BLOCK_QUEUE_GUARD_H_
#define BLOCK_QUEUE_GUARD_H_

#include <napi.h>

#include <new>
#include <type_traits>

namespace block_queue {

// Every way from JavaScript into the addon begins here. Node is built without exceptions: std::bad_alloc must not reach
// it, and becomes a JavaScript exception. Asks for no memory itself, apart from JavaScript's.
inline void throw_out_of_memory(napi_env env) { napi_throw_error(env, "ERR_OUT_OF_MEMORY", "Out of memory"); }

template <typename Call>
auto guarded(napi_env env, Call call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    throw_out_of_memory(env);
    return decltype(call())();
  }
}

// As Napi::ObjectWrap, guarded.
template <typename T>
class GuardedWrap : public Napi::ObjectWrap<T> {
 public:
  using Napi::ObjectWrap<T>::ObjectWrap;

  // In place of ObjectWrap's own, which it finds by this name.
  static napi_value ConstructorCallbackWrapper(napi_env env, napi_callback_info callback_info) {
    return guarded(env, [&]() -> napi_value {
      const Napi::CallbackInfo info(env, callback_info);
      if (!info.IsConstructCall()) return T::OnCalledAsFunction(info);
      T* const instance = new T(info);
      if (Napi::Env(env).IsExceptionPending()) {
        // Only without it the two can be parted.
        napi_value exception;
        napi_get_and_clear_last_exception(env, &exception);
        delete instance;
        napi_throw(env, exception);
      }
      return info.This();
    });
  }

 protected:
  // As ObjectWrap's InstanceMethod and InstanceAccessor.
  template <auto method>
  static Napi::ClassPropertyDescriptor<T> guarded_method(const char* name) {
    napi_property_descriptor description = {};
    description.utf8name = name;
    description.method = &GuardedWrap::call<method>;
    return description;
  }

  template <auto getter>
  static Napi::ClassPropertyDescriptor<T> guarded_accessor(const char* name) {
    napi_property_descriptor description = {};
    description.utf8name = name;
    description.getter = &GuardedWrap::call<getter>;
    return description;
  }

 private:
  template <auto method>
  static napi_value call(napi_env env, napi_callback_info callback_info) {
    return guarded(env, [&]() -> napi_value {
      const Napi::CallbackInfo info(env, callback_info);
      T* const instance = T::Unwrap(info.This().template As<Napi::Object>());
      if (instance == nullptr) return nullptr;
      if constexpr (std::is_void_v<decltype((instance->*method)(info))>) {
        (instance->*method)(info);
        return nullptr;
      } else {
        return (instance->*method)(info);
      }
    });
  }
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_GUARD_H_
