// Pure memory. Callable from any thread; one object on one thread at a time.
#ifndef BLOCK_QUEUE_ALIGNED_BYTES_H_
#define BLOCK_QUEUE_ALIGNED_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace block_queue {

// A block of memory of fixed size whose address is a multiple of an alignment, as O_DIRECT asks for. Moves, never
// copies.
class AlignedBytes {
 public:
  AlignedBytes() = default;

  // The bytes are not initialised. Without enough memory the result is false in a condition, and empty.
  // alignment: bytes, a power of two.
  static AlignedBytes allocate(size_t size, size_t alignment) {
    AlignedBytes bytes;
    const size_t usable = alignment < alignof(std::max_align_t) ? alignof(std::max_align_t) : alignment;
    void* memory = ::operator new (size, std::align_val_t{usable}, std::nothrow);
    if (memory == nullptr) return bytes;
    bytes.data_ = static_cast<uint8_t*>(memory);
    bytes.size_ = size;
    bytes.alignment_ = usable;
    return bytes;
  }

  AlignedBytes(const AlignedBytes&) = delete;
  AlignedBytes& operator=(const AlignedBytes&) = delete;

  AlignedBytes(AlignedBytes&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        alignment_(std::exchange(other.alignment_, 0)) {}

  AlignedBytes& operator=(AlignedBytes&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(alignment_, other.alignment_);
    return *this;
  }

  ~AlignedBytes() {
    if (data_ != nullptr) ::operator delete (data_, std::align_val_t{alignment_});
  }

  explicit operator bool() const { return data_ != nullptr; }

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  // Bytes.
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  size_t alignment_ = 0;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_ALIGNED_BYTES_H_
