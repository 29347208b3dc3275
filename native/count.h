// JavaScript thread only.
#ifndef BLOCK_QUEUE_COUNT_H_
#define BLOCK_QUEUE_COUNT_H_

#include <napi.h>

#include <cmath>
#include <cstdint>
#include <optional>

namespace block_queue {

// 2^53 - 1: JavaScript's numbers hold every integer up to it.
constexpr double kLargestExactInteger = 9007199254740991.0;

// Whether it is an integer from 0 to 2^53 - 1.
inline bool is_count(double number) {
  return number >= 0 && number <= kLargestExactInteger && std::floor(number) == number;
}

inline std::optional<uint64_t> count_of(Napi::Value value) {
  double number = -1;
  if (napi_get_value_double(value.Env(), value, &number) != napi_ok || !is_count(number)) return std::nullopt;
  return static_cast<uint64_t>(number);
}

}  // namespace block_queue

#endif  // BLOCK_QUEUE_COUNT_H_
