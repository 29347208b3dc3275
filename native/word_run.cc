#include "word_run.h"

namespace block_queue {

namespace {

uint64_t load(const uint8_t* word) {
  uint64_t value = 0;
  for (size_t byte = 0; byte < sizeof value; byte++) value = value << 8 | word[byte];
  return value;
}

}  // namespace

size_t word_run(const uint8_t* words, size_t count, uint64_t step) {
  if (count == 0) return 0;
  uint64_t expected = load(words);
  size_t length = 1;
  for (; length < count; length++) {
    expected += step;
    if (load(words + length * sizeof expected) != expected) break;
  }
  return length;
}

}  // namespace block_queue
