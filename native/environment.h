// JavaScript thread of one environment only.
#ifndef BLOCK_QUEUE_ENVIRONMENT_H_
#define BLOCK_QUEUE_ENVIRONMENT_H_

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "completion.h"
#include "io_pool.h"
#include "io_ring.h"
#include "queued_file.h"

namespace block_queue {

class BlockQueue;

// What one environment (the main thread, a worker_thread, an Electron window) has of this addon: there is nothing else
// that outlives a call, so environments know nothing of each other.
class Environment {
 public:
  // How many numbers stand for one request in a batch, each way.
  static constexpr size_t kNumbersPerRequest = 5;     // file, operation, request, offset, length
  static constexpr size_t kNumbersPerCompletion = 3;  // request, errno, value
  // What one wake-up delivers at most: timers and sockets have their turn after it. A batch of requests is not longer.
  static constexpr size_t kMostCompletions = 256;
  static constexpr size_t kMostFiles = 64;
  // Reads that are in the page cache, and writes of files that want it, are done on the JavaScript thread: it takes
  // less than handing them over. So many of one batch; JavaScript sees to it that the event loop has a turn after as
  // many.
  static constexpr size_t kMostAtOnce = 64;

  explicit Environment(Napi::Env env);
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  // That of this environment; made on first use. Shared with whoever may be finalized after the environment is.
  static std::shared_ptr<Environment> of(Napi::Env env);

  // (deliver, completions, files): deliver(completionCount, fileCount) is called when that much stands in the two
  // arrays.
  Napi::Value start(const Napi::CallbackInfo& info);
  // (requests, buffers, count): hand over a batch; buffers[i] is the memory of request i, if it has any.
  // -> how many were over at once: they stand in the array of completions, and are not delivered again.
  Napi::Value submit(const Napi::CallbackInfo& info);

  // Finish what has begun, carry on with the rest for two seconds at most, drop what is left then. Joins all threads.
  void shut_down();

  // Makes the file of that queue, and gives it a number. Throws std::bad_alloc, with nothing changed.
  std::shared_ptr<QueuedFile> add(BlockQueue* queue, QueuedFile::Options options, uint32_t* number);
  // Whether requests can go by a ring, which is made when it is first to be had. Throws std::bad_alloc.
  bool has_ring(Napi::Env env);
  // nullptr: there is none of that number.
  std::shared_ptr<QueuedFile> file(uint64_t number) const;
  void remove(uint32_t number);
  void close_unasked(std::shared_ptr<QueuedFile> file);
  // A file began, or ceased, to write nodes without being asked.
  void count_moving(int change);

 private:
  // from_loop: not by a wake-up of completions_, and outside of every callback scope.
  void deliver(Napi::Env env, bool from_loop);
  // What stands in delivered_ is in the array of completions then.
  void put_delivered();
  void tell(Napi::Env env, size_t completion_count, size_t file_count, bool from_loop);
  void put(const Completion& completion, size_t place);
  int begin(Job job, bool* is_over);
  bool read_at_once(const Job& job);
  void write_at_once(uint32_t* over_count);
  void ask();
  void make_room(size_t more);
  void hold();

  CompletionQueue completions_;
  IoPool cached_pool_;
  IoPool direct_pool_;
  IoPool codec_pool_;
  std::unique_ptr<IoRing> ring_;  // nullptr: not made yet, or not to be had so far
  bool is_shut_down_ = false;

  uint32_t last_number_ = 0;
  std::unordered_map<uint32_t, BlockQueue*> queues_;
  std::vector<std::weak_ptr<QueuedFile>> files_;  // those of queues_, and those that are being closed for nobody
  std::vector<std::shared_ptr<QueuedFile>> ending_files_;  // with room for all of these

  Napi::FunctionReference deliver_;
  Napi::Reference<Napi::Float64Array> completion_array_;
  Napi::Reference<Napi::Float64Array> file_array_;
  // Their memory: V8 does not move it.
  double* completion_numbers_ = nullptr;
  double* file_numbers_ = nullptr;

  size_t requests_out_ = 0;
  // What is set aside on the way to the pools and back: for all requests that are out, and the close of each file.
  size_t room_ = 0;
  int moving_files_ = 0;
  size_t at_once_left_ = 0;  // of the batch that is being submitted

  // Of the batch that is being submitted, or delivered. With room for the longest: they never ask for memory again.
  struct Asked {
    QueuedFile* file;
    Question question;
  };
  std::vector<Job> cached_jobs_;
  std::vector<Job> direct_jobs_;
  std::vector<Job> codec_jobs_;
  std::vector<Asked> asked_;
  std::vector<Question> questions_;  // those of asked_ to one file
  std::vector<Completion> delivered_;
  std::vector<uint32_t> progressed_;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_ENVIRONMENT_H_
