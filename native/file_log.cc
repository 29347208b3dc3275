// What of File changes the file, written down where somebody wants to know (IoLog); what it does stands in file.cc and
// file_windows.cc.
#include <errno.h>

#include <utility>

#include "file.h"

namespace block_queue {

template <typename Change>
int File::logged(IoEvent::Kind kind, uint64_t offset, uint64_t length, uint64_t section, const WritePiece* pieces,
                 size_t count, Change change) const {
  if (log_ == nullptr) return change();
  const uint64_t id = log_->begin(kind, offset, length, section, pieces, count);
  if (id == 0) return ENOMEM;
  const int error = change();
  log_->end(id, error);
  return error;
}

int File::write(const uint8_t* data, size_t length, uint64_t offset) const {
  const WritePiece piece = {data, length};
  return logged(IoEvent::Kind::kWrite, offset, length, 0, &piece, 1, [&] { return write_now(data, length, offset); });
}

int File::write_pieces(const WritePiece* pieces, size_t count, uint64_t offset, uint64_t section) const {
  uint64_t length = 0;
  for (size_t i = 0; i < count; ++i) length += pieces[i].length;
  return logged(IoEvent::Kind::kWrite, offset, length, section, pieces, count,
                [&] { return write_pieces_now(pieces, count, offset); });
}

int File::sync() const {
  if (log_ == nullptr) return sync_now();
  const uint64_t id = log_->begin_sync();
  if (id == 0) return ENOMEM;
  const int error = sync_now();
  log_->end_sync(id, error);
  return error;
}

int File::zero_range(uint64_t offset, uint64_t length) const {
  return logged(IoEvent::Kind::kZero, offset, length, 0, nullptr, 0, [&] { return zero_range_now(offset, length); });
}

int File::punch(uint64_t offset, uint64_t length) const {
  return logged(IoEvent::Kind::kPunch, offset, length, 0, nullptr, 0, [&] { return punch_now(offset, length); });
}

int File::allocate(uint64_t offset, uint64_t length) const {
  return logged(IoEvent::Kind::kAllocate, offset, length, 0, nullptr, 0, [&] { return allocate_now(offset, length); });
}

int File::truncate(uint64_t length) const {
  return logged(IoEvent::Kind::kTruncate, length, 0, 0, nullptr, 0, [&] { return truncate_now(length); });
}

}  // namespace block_queue
