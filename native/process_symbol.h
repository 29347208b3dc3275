// Callable from any thread.
#ifndef BLOCK_QUEUE_PROCESS_SYMBOL_H_
#define BLOCK_QUEUE_PROCESS_SYMBOL_H_

#ifndef _WIN32
#include <dlfcn.h>
#endif

namespace block_queue {

// Find a function of the process that loaded this addon. Nothing is linked: false where the process keeps it for
// itself, as Electron does.
template <typename Function>
bool find_in_process(const char* name, Function* function) {
#ifdef _WIN32
  static_cast<void>(name);
  *function = nullptr;
#else
  *function = reinterpret_cast<Function>(::dlsym(RTLD_DEFAULT, name));
#endif
  return *function != nullptr;
}

}  // namespace block_queue

#endif  // BLOCK_QUEUE_PROCESS_SYMBOL_H_
