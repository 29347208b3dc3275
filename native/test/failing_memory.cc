// Memory and threads that run out on purpose. Linked into the addon in the variant `faulty` only, where every operator
// new of its own code, and every start of a thread, comes here. Controlled by a file that both sides have mapped or
// open, so that nothing of it shows at the addon's boundary: see test/memory/failing-memory.ts.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>

#include "failing_new.h"

namespace {

struct Control {
  std::atomic<int64_t> fail_at;   // the number of the allocation that fails; 0: none
  std::atomic<int64_t> for_ever;  // and all that come later
  std::atomic<int64_t> counted;   // allocations since somebody set this to 0
  std::atomic<int64_t> failed;    // of these
};
static_assert(std::atomic<int64_t>::is_always_lock_free && sizeof(Control) == 32, "four numbers of 64 bits");

Control* open_control() {
  const char* const path = std::getenv("QCOW2_FAILING_MEMORY");
  if (path == nullptr) return nullptr;
  const int descriptor = ::open(path, O_RDWR | O_CLOEXEC);
  void* const memory = ::mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (memory == MAP_FAILED) std::abort();
  ::close(descriptor);
  return static_cast<Control*>(memory);
}

Control* const control = open_control();

}  // namespace

bool failing_new::is_to_fail() {
  if (control == nullptr) return false;
  const int64_t number = ++control->counted;
  const int64_t fail_at = control->fail_at;
  if (fail_at == 0 || number < fail_at || (number > fail_at && control->for_ever == 0)) return false;
  ++control->failed;
  return true;
}

extern "C" {
// The linker sends calls of pthread_create here (--wrap).
int __real_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument);
int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
  return failing_new::is_to_fail() ? EAGAIN : __real_pthread_create(thread, attributes, run, argument);
}
}
