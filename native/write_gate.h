// Callable from any thread, one at a time: the owner brings the lock. Pure: no I/O, no thread.
#ifndef BLOCK_QUEUE_WRITE_GATE_H_
#define BLOCK_QUEUE_WRITE_GATE_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "room.h"

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
  // Room for so many more. Throws std::bad_alloc, with nothing changed.
  void make_room(size_t more) { block_queue::make_room(&entries_, more); }
  // Whether the change may begin now; if not, a later leave() tells its id. Needs no memory where there is room; throws
  // std::bad_alloc otherwise, with nothing changed.
  bool enter(uint64_t id, const WriteSpan& span);
  // The change, which had begun, is over. Calls tell(id) for those that may begin now, in the order they came.
  template <typename Tell>
  void leave(uint64_t id, Tell tell) {
    remove(id);
    for (size_t i = 0; waiting_ > 0 && i < entries_.size(); ++i) {
      if (begin_now(i)) tell(entries_[i].id);
    }
  }

  bool empty() const { return entries_.empty(); }

 private:
  struct Entry {
    uint64_t id;
    WriteSpan span;
    bool begun;
  };

  bool may_begin(const WriteSpan& span, size_t ahead) const;
  void remove(uint64_t id);
  bool begin_now(size_t index);

  std::vector<Entry> entries_;  // in order of arrival
  size_t waiting_ = 0;
  size_t exclusive_ = 0;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_WRITE_GATE_H_
