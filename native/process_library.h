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
  ProcessLibrary() = default;

  // One that the system has, by the name that it has on every machine: on Linux alone. It is loaded if it was not, and
  // stays: nobody else sees its functions, but what it calls itself is looked for in the program first. So there must
  // be none of its kind in the program.
#ifdef __linux__
  explicit ProcessLibrary(const char* name) : handle_(::dlopen(name, RTLD_LAZY | RTLD_LOCAL)) {
    is_there_ = handle_ != nullptr;
  }
#else
  explicit ProcessLibrary(const char*) : is_there_(false) {}
#endif

  // false: it keeps that function for itself, as Electron does. Or it is another library's than those found before: two
  // of a kind may be of different versions, and must not be mixed.
  template <typename Function>
  bool find(const char* name, Function* function) {
    if (!is_there_) return false;
#ifdef _WIN32
    // Of the program itself, whatever its name is.
    void* const found = reinterpret_cast<void*>(::GetProcAddress(::GetModuleHandleW(nullptr), name));
    if (found == nullptr) return false;
#else
    void* const found = ::dlsym(handle_, name);
    Dl_info place = {};
    if (found == nullptr || ::dladdr(found, &place) == 0) return false;
    if (begins_at_ == nullptr) begins_at_ = place.dli_fbase;
    if (place.dli_fbase != begins_at_) return false;
#endif
    *function = reinterpret_cast<Function>(found);
    return true;
  }

 private:
  bool is_there_ = true;
#ifndef _WIN32
  void* handle_ = RTLD_DEFAULT;
  void* begins_at_ = nullptr;
#endif
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_PROCESS_LIBRARY_H_
