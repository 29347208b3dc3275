// Construction, submit(), and the functions of the queue on the JavaScript thread; perform() on the threads of a pool.
#ifndef BLOCK_QUEUE_QUEUED_FILE_H_
#define BLOCK_QUEUE_QUEUED_FILE_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "codec.h"
#include "completion.h"
#include "direct_io.h"
#include "file.h"
#include "io_pool.h"
#include "job.h"
#include "worker.h"
#include "write_gate.h"

namespace block_queue {

// One open file: its data path, its queue of ordered metadata writes, and the thread of that queue.
// Alive while a job for it is under way, and until somebody has had it closed (Operation::kClose).
class QueuedFile : public std::enable_shared_from_this<QueuedFile> {
 public:
  struct Options {
    std::string path;
    File::OpenOptions open;
    SyncPolicy policy = SyncPolicy::kOnFlush;
    uint64_t idle_limit_ms = 0;
    bool ring = false;           // data requests go by the environment's IoRing where they can
    bool inline_waits = false;   // for lone requests by the ring, on the JavaScript thread
    bool inline_writes = false;  // small writes are made on the JavaScript thread
    bool record = false;         // keep a log of all that changes the file
  };

  // number: of this file in its environment. Both the pool and completions outlive all jobs.
  QueuedFile(uint32_t number, Options options, IoPool* pool, CompletionQueue* completions);
  QueuedFile(const QueuedFile&) = delete;
  QueuedFile& operator=(const QueuedFile&) = delete;

  // Do what has to be done in the order of JavaScript's calls; the rest goes to the pool, by way of jobs_for_pool,
  // which has room. Throws std::bad_alloc, with nothing begun.
  void submit(Job job, std::vector<Job>* jobs_for_pool);
  // Those that are refused are told so as well.
  void submit(Question* questions, size_t count);
  // A job to close the file is about to be submitted to the pool, unasked.
  void close_begins() { close_submitted_ = true; }

  // What is longer takes too long for the JavaScript thread. Bytes.
  static constexpr uint64_t kLongestAtOnce = uint64_t{64} << 10;

  // Carry out a read on this thread if that takes no waiting. Throws std::bad_alloc, with nothing read.
  bool perform_at_once(const Job& job);
  // The same for a read of the file as it is, without the queue.
  bool read_at_once(uint8_t* data, uint64_t length, uint64_t offset);
  // Carry out a write on this thread, which the page cache takes; it waits where the host makes its writers wait.
  // false: to be written by way of a job, which tells why it fails if it does.
  bool write_at_once(const uint8_t* data, uint64_t length, uint64_t offset);
  // The same for jobs that go together and use the page cache, if they are writes of a file that wants it.
  static bool write_together_at_once(const Job* jobs, size_t count);
  bool is_direct() const { return options_.open.direct; }

  // Carry out a job, and tell the queue and the gate; what is left to do is to tell JavaScript: of a write that is to
  // be durable the queue will, and nobody is to be told now.
  static Completion perform(const Job& job, Scratch* scratch, Codec* codec);
  // Whether next may be carried out together with jobs that end with last and are `length` bytes: it goes on where
  // they end.
  static bool continues(const Job& last, uint64_t length, const Job& next);
  // How many jobs go together, from the first on: `longest` bytes at most, if it is more than one.
  static size_t count_together(const Job* jobs, size_t count, uint64_t longest);
  // Carry out jobs of which each continues the one before, kMostJobsTogether at most, with one system call. false: they
  // are to be performed one by one, which finds out whose fault it is.
  static bool perform_together(const Job* jobs, size_t count, Scratch* scratch);

  // Whether a job may go by the ring: it is a read or a write of whole units.
  bool suits_ring(const Job& job) const;
  bool uses_ring() const { return options_.ring; }
  // Whether the JavaScript thread waits for a job if it is alone under way.
  bool waits_for(const Job& job) const { return options_.inline_waits && job.length <= kLongestAtOnce; }
  // As perform(), after somebody else has read or written all bytes of a job.
  static Completion performed(const Job& job);

  // From the end of kOpen on, for ever: what is below may be called.
  bool was_opened() const { return opened_.load(std::memory_order_acquire); }
  // Until kClose is submitted: the descriptor is there.
  bool is_open() const { return was_opened() && !close_submitted_; }
  const File& file() const { return file_; }
  Worker& worker() { return *worker_; }
  uint64_t length_at_open() const { return length_at_open_; }
  IoLog& log() { return log_; }

  // The environment ends: the queue's thread finishes, nobody waits at the gate any more. May be called again.
  void request_stop(Clock::time_point deadline);
  void abandon_gate();
  void join();

  // Sync data with this file from now on: each sync of this one is one of data first, and both only where something has
  // changed since their last. Writes of data are what this file's queue waits for. Before data is changed.
  void sync_with(std::shared_ptr<QueuedFile> data);
  // Calls of fdatasync.
  uint64_t syncs() const { return syncs_; }

  // Bytes on which this file holds shared locks. JavaScript thread only.
  std::set<uint64_t> locked_bytes;

 private:
  int open();
  void close();
  template <typename Write>
  bool write_on_this_thread(Write write);
  int read_packed(const Job& job, Scratch* scratch, Codec* codec, int64_t* unpacked) const;
  int change(const Job& job, Scratch* scratch);
  int write_zeroes(const Job& job, Scratch* scratch);
  int allocate(const Job& job, Scratch* scratch);
  int extend(uint64_t end, Scratch* scratch);
  int write_nodes(uint64_t offset, Section section, const WritePiece* nodes, size_t count);
  int write_nodes_now(uint64_t offset, Section section, const WritePiece* nodes, size_t count);
  void changed(bool succeeded);
  int sync();
  int sync_changes();

  bool enter_gate(Job* job);
  void leave_gate(const Job& job, bool succeeded);
  void leave_gate(uint64_t ticket);
  WriteSpan span_of(const Job& job);

  const uint32_t number_;
  const Options options_;
  IoPool* const pool_;
  CompletionQueue* const completions_;
  IoLog log_;
  File file_;
  uint64_t length_at_open_ = 0;
  std::unique_ptr<Worker> worker_;
  std::atomic<bool> opened_{false};            // all above are set; they stay until the file is destroyed
  bool close_submitted_ = false;               // JavaScript thread only
  Clock::time_point no_write_at_once_before_;  // JavaScript thread only

  std::atomic<bool> has_changed_{false};  // since the last sync started
  std::atomic<uint64_t> syncs_{0};
  // The file that this one's data stands in, and the reverse.
  std::shared_ptr<QueuedFile> data_;     // guarded by pair_mutex_
  std::weak_ptr<QueuedFile> synced_by_;  // set before the first change, and then for ever
  std::mutex pair_mutex_;                // also: the file is not closed while the other's thread syncs it

  // The gate serves files with O_DIRECT only. All below are guarded by gate_mutex_.
  std::mutex gate_mutex_;
  std::condition_variable admitted_;
  WriteGate gate_;  // with room for the queue's thread, always
  uint64_t last_ticket_ = 0;
  std::vector<Job> waiting_jobs_;  // by ascending tickets
  uint64_t waiting_nodes_ = 0;     // the ticket of the queue's thread, while that may not begin
  bool gate_abandoned_ = false;
  // The file is surely as long as this, whatever is under way.
  uint64_t certain_length_ = 0;
  size_t truncations_ = 0;  // under way or waiting
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_QUEUED_FILE_H_
