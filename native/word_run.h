// Callable from any thread.
#ifndef BLOCK_QUEUE_WORD_RUN_H_
#define BLOCK_QUEUE_WORD_RUN_H_

#include <cstddef>
#include <cstdint>

namespace block_queue {

// How many of these big-endian words of 64 bits, from the first on, are each `step` more than the one before it.
size_t word_run(const uint8_t* words, size_t count, uint64_t step);

}  // namespace block_queue

#endif  // BLOCK_QUEUE_WORD_RUN_H_
