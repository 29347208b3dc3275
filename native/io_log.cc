#include "io_log.h"

#include <new>
#include <utility>

#include "room.h"

namespace block_queue {

uint64_t IoLog::begin(IoEvent::Kind kind, uint64_t offset, uint64_t length, uint64_t section, const WritePiece* pieces,
                      size_t count) {
  IoEvent event;
  event.type = IoEvent::Type::kSubmitted;
  event.kind = kind;
  event.offset = offset;
  event.length = length;
  event.section = section;
  try {
    for (size_t i = 0; i < count; ++i) {
      event.bytes.insert(event.bytes.end(), pieces[i].data, pieces[i].data + pieces[i].length);
    }
  } catch (const std::bad_alloc&) {
    return 0;
  }
  return add_beginning(std::move(event));
}

void IoLog::end(uint64_t id, int error) {
  IoEvent event;
  event.type = IoEvent::Type::kEnded;
  event.id = id;
  event.error = error;
  add_end(std::move(event));
}

uint64_t IoLog::begin_sync() {
  IoEvent event;
  event.type = IoEvent::Type::kSyncStarted;
  return add_beginning(std::move(event));
}

void IoLog::end_sync(uint64_t id, int error) {
  IoEvent event;
  event.type = IoEvent::Type::kSyncEnded;
  event.id = id;
  event.error = error;
  add_end(std::move(event));
}

void IoLog::note(uint64_t id) {
  IoEvent event;
  event.id = id;
  const std::lock_guard<std::mutex> lock(mutex_);
  make_room(&events_, under_way_ + 1);
  events_.push_back(std::move(event));
}

std::vector<IoEvent> IoLog::take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<IoEvent> events;
  make_room(&events, under_way_);
  events.swap(events_);
  return events;
}

uint64_t IoLog::add_beginning(IoEvent event) {
  const std::lock_guard<std::mutex> lock(mutex_);
  try {
    make_room(&events_, under_way_ + 2);
  } catch (const std::bad_alloc&) {
    return 0;
  }
  ++under_way_;
  event.id = ++last_id_;
  events_.push_back(std::move(event));
  return last_id_;
}

void IoLog::add_end(IoEvent event) {
  const std::lock_guard<std::mutex> lock(mutex_);
  --under_way_;
  events_.push_back(std::move(event));
}

}  // namespace block_queue
