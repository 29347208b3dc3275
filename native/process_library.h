// Callable from any thread; one object on one thread at a time.
#ifndef BLOCK_QUEUE_PROCESS_LIBRARY_H_
#define BLOCK_QUEUE_PROCESS_LIBRARY_H_

#ifndef _WIN32
#include <dlfcn.h>
#endif

namespace block_queue {

// A library that the process which loaded this addon has, within its program or beside it. Nothing is linked.
class ProcessLibrary {
 public:
  // false: it keeps that function for itself, as Electron does. Or it is another library's than those found before: two
  // of a kind may be of different versions, and must not be mixed.
  template <typename Function>
  bool find(const char* name, Function* function) {
#ifdef _WIN32
    static_cast<void>(name);
    static_cast<void>(function);
    return false;
#else
    void* const found = ::dlsym(RTLD_DEFAULT, name);
    Dl_info place = {};
    if (found == nullptr || ::dladdr(found, &place) == 0) return false;
    if (begins_at_ == nullptr) begins_at_ = place.dli_fbase;
    *function = reinterpret_cast<Function>(found);
    return place.dli_fbase == begins_at_;
#endif
  }

 private:
  [[maybe_unused]] void* begins_at_ = nullptr;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_PROCESS_LIBRARY_H_
