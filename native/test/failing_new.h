// Every operator new of a program, which whoever includes this lets fail. To be included once in a program: a replaced
// operator new may not be inline.
#ifndef BLOCK_QUEUE_TEST_FAILING_NEW_H_
#define BLOCK_QUEUE_TEST_FAILING_NEW_H_

#include <cstddef>
#include <cstdlib>
#include <new>

namespace failing_new {

// Whether the next allocation finds no memory. Asked once for each; to be defined by whoever includes this.
bool is_to_fail();

inline void* allocate(size_t size, size_t alignment) {
  if (is_to_fail()) return nullptr;
  if (alignment <= alignof(std::max_align_t)) return std::malloc(size);
  return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

inline void* allocate_or_throw(size_t size, size_t alignment) {
  void* const memory = allocate(size, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace failing_new

void* operator new(size_t size) { return failing_new::allocate_or_throw(size, 1); }
void* operator new[](size_t size) { return failing_new::allocate_or_throw(size, 1); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return failing_new::allocate(size, 1); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return failing_new::allocate(size, 1); }
void* operator new(size_t size, std::align_val_t alignment) {
  return failing_new::allocate_or_throw(size, static_cast<size_t>(alignment));
}
void* operator new(size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return failing_new::allocate(size, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

#endif  // BLOCK_QUEUE_TEST_FAILING_NEW_H_
