// Callable from any thread, one at a time: the owner brings the lock. Pure: no I/O, no thread.
#ifndef BLOCK_QUEUE_WRITE_GATE_H_
#define BLOCK_QUEUE_WRITE_GATE_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace block_queue {

// Bytes of a file that a change touches, in whole units of its alignment.
struct WriteSpan {
  static constexpr uint64_t kToTheEnd = std::numeric_limits<uint64_t>::max();

  uint64_t begin;
  uint64_t end;
  // Writes back bytes that it has read before, and that are not its own: nobody may change them meanwhile.
  bool exclusive;
};

// With O_DIRECT only whole units can be written; a request for part of one reads it, changes it, and writes it back.
// Two such requests in one unit would undo one another. Here a change waits until no other is under way that it must
// not meet. First come, first served: nobody is overtaken by what he would have to wait for.
class WriteGate {
 public:
  // Whether the change may begin now. If not, a later leave() answers its id.
  bool enter(uint64_t id, const WriteSpan& span);
  // The change, which had begun, is over. Answers those that may begin now, in the order they came.
  std::vector<uint64_t> leave(uint64_t id);

  bool empty() const { return entries_.empty(); }

 private:
  struct Entry {
    uint64_t id;
    WriteSpan span;
    bool begun;
  };

  bool may_begin(const WriteSpan& span, size_t ahead) const;

  std::vector<Entry> entries_;  // in order of arrival
  size_t waiting_ = 0;
  size_t exclusive_ = 0;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_WRITE_GATE_H_
