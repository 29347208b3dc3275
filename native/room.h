// Pure memory. Callable from any thread; one object on one thread at a time.
#ifndef BLOCK_QUEUE_ROOM_H_
#define BLOCK_QUEUE_ROOM_H_

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace block_queue {

// What is needed for a promise to be kept is set aside before it is given: from then on there is nothing that can fail.

// So much more can be appended without asking for memory. Throws std::bad_alloc, with nothing changed.
template <typename Item>
void make_room(std::vector<Item>* items, size_t more) {
  const size_t needed = items->size() + more;
  if (needed > items->capacity()) items->reserve(std::max(needed, 2 * items->capacity()));
}

// First in, first out. Asks for memory in reserve() only.
template <typename Item>
class Ring {
 public:
  // room: how many items there will be at most. Throws std::bad_alloc, with nothing changed.
  void reserve(size_t room) {
    if (room <= items_.size()) return;
    std::vector<Item> items(room);
    for (size_t i = 0; i < count_; ++i) items[i] = std::move(items_[(first_ + i) % items_.size()]);
    items_.swap(items);
    first_ = 0;
  }

  bool empty() const { return count_ == 0; }
  size_t size() const { return count_; }

  // There is room.
  void push(Item item) {
    items_[(first_ + count_) % items_.size()] = std::move(item);
    ++count_;
  }

  // There is one, as for pop().
  const Item& front() const { return items_[first_]; }

  // There is one.
  Item pop() {
    Item item = std::exchange(items_[first_], {});
    first_ = (first_ + 1) % items_.size();
    --count_;
    return item;
  }

 private:
  std::vector<Item> items_;
  size_t first_ = 0;
  size_t count_ = 0;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_ROOM_H_
