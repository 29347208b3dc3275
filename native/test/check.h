// Test support. Called on one thread.
#ifndef BLOCK_QUEUE_TEST_CHECK_H_
#define BLOCK_QUEUE_TEST_CHECK_H_

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

namespace block_queue_test {

// A test stops the program at its first failure, naming the line: what follows would only confuse.
inline void check(bool condition, const std::string& what, int line = __builtin_LINE()) {
  if (condition) return;
  std::fprintf(stderr, "line %d: not so: %s\n", line, what.c_str());
  std::exit(1);
}

template <typename Actual, typename Expected>
void check_equal(const Actual& actual, const Expected& expected, const std::string& what = "equal",
                 int line = __builtin_LINE()) {
  if (actual == expected) return;
  std::ostringstream message;
  message << what << ": got " << actual << ", want " << expected;
  check(false, message.str(), line);
}

struct Test {
  const char* name;  // a sentence about behaviour
  void (*run)();
};

// Runs them in order. Answers what main() does.
inline int run_all(const std::vector<Test>& tests) {
  for (const Test& test : tests) {
    std::printf("%s\n", test.name);
    std::fflush(stdout);
    test.run();
  }
  std::printf("%zu passed\n", tests.size());
  return 0;
}

}  // namespace block_queue_test

#endif  // BLOCK_QUEUE_TEST_CHECK_H_
