#include "direct_io.h"

#include <errno.h>

#include <algorithm>
#include <cstring>

namespace block_queue {

namespace {

bool is_aligned(const void* address, size_t alignment) { return reinterpret_cast<uintptr_t>(address) % alignment == 0; }

uint64_t round_down(uint64_t value, uint64_t unit) { return value - value % unit; }
uint64_t round_up(uint64_t value, uint64_t unit) { return round_down(value + unit - 1, unit); }

template <typename Piece>
bool are_aligned(const Piece* pieces, size_t count, size_t alignment) {
  return std::all_of(pieces, pieces + count, [&](const Piece& piece) { return is_aligned(piece.data, alignment); });
}

// Whole units, from memory that may lie anywhere.
int write_units(const File& file, Scratch* scratch, const uint8_t* data, size_t length, uint64_t offset) {
  if (is_aligned(data, file.memory_alignment())) return file.write(data, length, offset);
  uint8_t* const bytes = scratch->bytes();
  if (bytes == nullptr) return ENOMEM;
  for (size_t done = 0; done < length;) {
    const size_t count = std::min(length - done, Scratch::kBytes);
    std::memcpy(bytes, data + done, count);
    const int error = file.write(bytes, count, offset + done);
    if (error != 0) return error;
    done += count;
  }
  return 0;
}

// A part of one unit.
int write_part(const File& file, Scratch* scratch, const uint8_t* data, size_t length, uint64_t offset) {
  const uint64_t unit = file.offset_alignment();
  const uint64_t begin = round_down(offset, unit);
  uint8_t* const bytes = scratch->bytes();
  if (bytes == nullptr) return ENOMEM;
  const int error = file.read(bytes, static_cast<size_t>(unit), begin);
  if (error != 0) return error;
  std::memcpy(bytes + (offset - begin), data, length);
  return file.write(bytes, static_cast<size_t>(unit), begin);
}

int write_parts_and_units(const File& file, Scratch* scratch, const uint8_t* data, size_t length, uint64_t offset) {
  const uint64_t unit = file.offset_alignment();
  const uint64_t end = offset + length;
  const uint64_t head_end = std::min(round_up(offset, unit), end);
  const uint64_t tail_begin = std::max(round_down(end, unit), head_end);
  int error = 0;
  if (offset < head_end) error = write_part(file, scratch, data, static_cast<size_t>(head_end - offset), offset);
  if (error == 0 && head_end < tail_begin) {
    const auto count = static_cast<size_t>(tail_begin - head_end);
    error = write_units(file, scratch, data + (head_end - offset), count, head_end);
  }
  if (error == 0 && tail_begin < end) {
    error = write_part(file, scratch, data + (tail_begin - offset), static_cast<size_t>(end - tail_begin), tail_begin);
  }
  return error;
}

}  // namespace

uint8_t* Scratch::bytes() {
  if (!bytes_) bytes_ = AlignedBytes::allocate(kBytes, 4096);
  return bytes_.data();
}

int read_any(const File& file, Scratch* scratch, uint8_t* data, size_t length, uint64_t offset) {
  if (!file.direct()) return file.read(data, length, offset);
  const uint64_t unit = file.offset_alignment();
  while (length > 0) {
    size_t count = 0;
    int error = 0;
    if (offset % unit == 0 && length >= unit && is_aligned(data, file.memory_alignment())) {
      count = static_cast<size_t>(round_down(length, unit));
      error = file.read(data, count, offset);
    } else {
      uint8_t* const bytes = scratch->bytes();
      if (bytes == nullptr) return ENOMEM;
      const uint64_t begin = round_down(offset, unit);
      const uint64_t skipped = offset - begin;
      const auto whole = static_cast<size_t>(std::min<uint64_t>(round_up(skipped + length, unit), Scratch::kBytes));
      error = file.read(bytes, whole, begin);
      count = std::min(length, whole - static_cast<size_t>(skipped));
      if (error == 0) std::memcpy(data, bytes + skipped, count);
    }
    if (error != 0) return error;
    data += count;
    length -= count;
    offset += count;
  }
  return 0;
}

int write_any(const File& file, Scratch* scratch, const uint8_t* data, size_t length, uint64_t offset) {
  if (!file.direct()) return file.write(data, length, offset);
  const uint64_t unit = file.offset_alignment();
  if (offset % unit == 0 && length % unit == 0) return write_units(file, scratch, data, length, offset);
  uint64_t length_before = 0;
  const int length_error = file.length(&length_before);
  if (length_error != 0) return length_error;
  const int error = write_parts_and_units(file, scratch, data, length, offset);
  // Where the last unit ends within the file, nothing of this made it longer, and others may be doing so right now.
  if (round_up(offset + length, unit) <= length_before) return error;
  // The last unit may have made the file longer than the request does, also when a later part failed. Only then nobody
  // else writes behind it now (see QueuedFile::span_of): otherwise what they have added would be cut off.
  const uint64_t longest = std::max(length_before, offset + length);
  if (round_up(offset + length, unit) <= longest) return error;
  uint64_t length_now = 0;
  if (file.length(&length_now) == 0 && length_now > longest) {
    const int truncate_error = file.truncate(longest);
    if (error == 0) return truncate_error;
  }
  return error;
}

int read_together(const File& file, Scratch* scratch, const ReadPiece* pieces, size_t count, uint64_t offset) {
  if (are_aligned(pieces, count, file.memory_alignment())) return file.read_pieces(pieces, count, offset);
  uint8_t* const bytes = scratch->bytes();
  if (bytes == nullptr) return ENOMEM;
  size_t length = 0;
  for (size_t i = 0; i < count; ++i) length += pieces[i].length;
  const int error = file.read(bytes, length, offset);
  const uint8_t* from = bytes;
  for (size_t i = 0; error == 0 && i < count; from += pieces[i++].length) {
    std::memcpy(pieces[i].data, from, pieces[i].length);
  }
  return error;
}

int write_together(const File& file, Scratch* scratch, const WritePiece* pieces, size_t count, uint64_t offset) {
  if (are_aligned(pieces, count, file.memory_alignment())) return file.write_pieces(pieces, count, offset, 0);
  uint8_t* const bytes = scratch->bytes();
  if (bytes == nullptr) return ENOMEM;
  uint8_t* to = bytes;
  for (size_t i = 0; i < count; to += pieces[i++].length) std::memcpy(to, pieces[i].data, pieces[i].length);
  return file.write(bytes, static_cast<size_t>(to - bytes), offset);
}

int write_zero_bytes(const File& file, Scratch* scratch, uint64_t offset, uint64_t length) {
  AlignedBytes zeros = AlignedBytes::allocate(Scratch::kBytes, 4096);
  if (!zeros) return ENOMEM;
  std::memset(zeros.data(), 0, zeros.size());
  for (uint64_t done = 0; done < length;) {
    // Up to a multiple of the buffer's size, so that only the first and the last piece can be odd.
    const uint64_t most = Scratch::kBytes - (offset + done) % Scratch::kBytes;
    const auto count = static_cast<size_t>(std::min(length - done, most));
    const int error = write_any(file, scratch, zeros.data(), count, offset + done);
    if (error != 0) return error;
    done += count;
  }
  return 0;
}

}  // namespace block_queue
