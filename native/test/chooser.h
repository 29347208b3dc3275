// For the tests' own thread only.
#ifndef BLOCK_QUEUE_TEST_CHOOSER_H_
#define BLOCK_QUEUE_TEST_CHOOSER_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "check.h"

namespace block_queue_test {

// Chooses by a list of numbers that was chosen before, then always the first; the list says what is left to try.
class Chooser {
 public:
  void restart() { depth_ = 0; }

  size_t choose(size_t count) {
    if (depth_ == taken_.size()) {
      taken_.push_back(0);
      counts_.push_back(count);
    }
    check(counts_[depth_] == count, "a replay is the same as the run before");
    return taken_[depth_++];
  }

  // To follow a list of numbers to its end.
  void follow(std::vector<size_t> path) {
    taken_ = std::move(path);
    counts_.clear();
    depth_ = 0;
  }
  bool at_end() const { return depth_ == taken_.size(); }
  size_t follow_next() { return taken_[depth_++]; }

  // The next schedule; false: all were had.
  bool advance() {
    taken_.resize(depth_);
    counts_.resize(depth_);
    while (!taken_.empty() && taken_.back() + 1 == counts_.back()) {
      taken_.pop_back();
      counts_.pop_back();
    }
    if (taken_.empty()) return false;
    ++taken_.back();
    return true;
  }

 private:
  std::vector<size_t> taken_;
  std::vector<size_t> counts_;
  size_t depth_ = 0;
};

}  // namespace block_queue_test

#endif  // BLOCK_QUEUE_TEST_CHOOSER_H_
