// Callable from any thread.
#ifndef BLOCK_QUEUE_LARGE_PAGES_H_
#define BLOCK_QUEUE_LARGE_PAGES_H_

#include <cstddef>

namespace block_queue {

// Ask the system to back the whole pages of 2 MiB in this memory, which nobody has touched yet, with such. Advice:
// there may be none, or another system.
void use_large_pages(void* memory, size_t size);

}  // namespace block_queue

#endif  // BLOCK_QUEUE_LARGE_PAGES_H_
