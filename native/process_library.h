// Callable from any thread; one object on one thread at a time.
#ifndef BLOCK_QUEUE_PROCESS_LIBRARY_H_
#define BLOCK_QUEUE_PROCESS_LIBRARY_H_

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace block_queue {

// A library that the process which loaded this addon has: within its program, or on other systems than Windows beside
// it. Nothing is linked.
class ProcessLibrary {
 public:
  // false: it keeps that function for itself, as Electron does. Or it is another library's than those found before: two
  // of a kind may be of different versions, and must not be mixed.
  template <typename Function>
  bool find(const char* name, Function* function) {
#ifdef _WIN32
    // Of the program itself, whatever its name is.
    void* const found = reinterpret_cast<void*>(::GetProcAddress(::GetModuleHandleW(nullptr), name));
    if (found == nullptr) return false;
#else
    void* const found = ::dlsym(RTLD_DEFAULT, name);
    Dl_info place = {};
    if (found == nullptr || ::dladdr(found, &place) == 0) return false;
    if (begins_at_ == nullptr) begins_at_ = place.dli_fbase;
    if (place.dli_fbase != begins_at_) return false;
#endif
    *function = reinterpret_cast<Function>(found);
    return true;
  }

#ifndef _WIN32
 private:
  void* begins_at_ = nullptr;
#endif
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_PROCESS_LIBRARY_H_
