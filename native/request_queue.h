// Pure: no I/O, no lock, no thread, no clock. Callable from any thread, one at a time: the owner brings the lock.
#ifndef BLOCK_QUEUE_REQUEST_QUEUE_H_
#define BLOCK_QUEUE_REQUEST_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "aligned_bytes.h"

namespace block_queue {

// The running number of a section. 0 is before everything and always durable.
using Section = uint64_t;

// When things are made durable. The values are those of lib/native/addon.ts.
enum class SyncPolicy { kNever = 0, kOnFlush = 1, kEveryWrite = 2 };

// One version of one byte range. Its bytes never change once its section is sealed.
struct Node {
  uint64_t offset;
  AlignedBytes bytes;
  Section section;
  uint64_t queued_at_ms;
};
using NodesByOffset = std::map<uint64_t, std::shared_ptr<Node>>;

// What the worker has to do next; it reports the outcome with written() or synced().
struct Action {
  enum class Kind { kIdle, kWrite, kSync };
  Kind kind = Kind::kIdle;
  // kWrite: one section, no two overlap, at least one. The queue's own, and unchanged until written(): the worker reads
  // them without the lock.
  const NodesByOffset* nodes = nullptr;
};

// A request that waits, or has waited and is over.
struct Waiter {
  uint64_t id;         // as given
  Section target = 0;  // what it waits for
  int error = 0;       // of one that is over: 0 or an errno
};
// A waiter gets its memory when it asks. From then on it is only passed from list to list: to tell it needs none.
using Waiters = std::list<Waiter>;

// They only grow. What the worker alone can know (merged writes, sync times) it counts itself.
struct Counters {
  uint64_t nodes_queued = 0;        // calls of enqueue
  uint64_t nodes_coalesced = 0;     // of these, folded into a node that waited
  uint64_t node_bytes_written = 0;  // bytes of nodes whose write succeeded
  uint64_t barriers_issued = 0;     // syncs without which the next section could not have been written
  uint64_t flushes_asked = 0;       // calls of flush
  uint64_t syncs_issued = 0;        // all syncs handed out
  uint64_t queued_bytes_peak = 0;
  uint64_t queued_nodes_peak = 0;
};

// The ordered metadata writes of one file: which bytes may be written when, and who has waited long enough.
//
// Sections are numbered by the queue. All sections below `open_` are sealed: written, or being written, or to be
// written again after the disk was full. A node is handed out only when every node of every lower section is durable
// (written, if the policy is kNever). One action is out at a time.
//
// Memory is asked for by enqueue, flush, await_durable and collect_overlay only. Without it they do nothing, and say
// so: what has been accepted can always be written, and whoever waits can always be told.
class RequestQueue {
 public:
  // memory_alignment: bytes, a power of two: where the bytes of nodes must start in memory.
  // idle_limit_ms: how long a node may wait before it is written unasked; 0: for ever.
  RequestQueue(SyncPolicy policy, size_t memory_alignment, uint64_t idle_limit_ms);

  RequestQueue(const RequestQueue&) = delete;
  RequestQueue& operator=(const RequestQueue&) = delete;

  // Queue a copy of bytes; length > 0, offset + length fits. Returns the section that holds it, >= earliest and > 0;
  // or 0, with nothing changed, when there is no memory for the copy. now_ms never goes back.
  Section enqueue(uint64_t offset, const uint8_t* bytes, size_t length, Section earliest, uint64_t now_ms);

  // A node could not be queued, and others may have been queued with it in mind: from now on nothing is written any
  // more, and everybody who waits is over. What is under way is finished.
  void give_up(int error, Waiters* finished);

  // The lowest section in front of which a sync has yet to start.
  Section section_after_data() const;

  // A data write of this file (or anything else that changed it beside the queue) has completed: the next sync covers
  // it.
  void data_written();

  // Waiters. Each finishes exactly once, in one of the lists `finished`; where there is nothing to wait for, in this
  // call. Both throw std::bad_alloc, with nothing changed.
  // flush: all nodes queued now and all data written so far are durable. Joins the next sync, never a running one.
  void flush(uint64_t id, Waiters* finished);
  // await_durable: the nodes up to section that are queued now are durable; costs a sync only if they are not.
  void await_durable(uint64_t id, Section section, Waiters* finished);

  // Those who have been told: their memory is for the next who ask.
  void recycle(Waiters* finished) { spare_waiters_.splice(spare_waiters_.end(), *finished); }

  // Write out what is queued now, without waiting for a final sync (room is needed).
  void drain();
  // Write the lowest section, if that takes no sync: false if it does, or if there is none.
  bool write_ahead();

  // What the worker does next. kIdle: nothing is wanted, or an action is still out.
  Action next(uint64_t now_ms);
  // When next() would have something to do only because nodes have waited long enough; nullopt: never.
  std::optional<uint64_t> deadline_ms() const;
  // What next() handed out whose outcome is still to be told; kIdle: nothing.
  Action::Kind outstanding() const { return outstanding_; }

  // The outcome of the action that next() handed out; error 0 or an errno. Appends waiters that are over.
  void written(int error, Waiters* finished);
  void synced(int error, Waiters* finished);

  // The parts of all nodes, queued and in flight, that overlap [offset, offset + length), as copies, oldest first.
  // Collect them before the file is read and apply them in this order after: a node that is written meanwhile is not
  // missed. Throws std::bad_alloc.
  struct OverlayPiece {
    uint64_t offset;
    std::vector<uint8_t> bytes;
  };
  std::vector<OverlayPiece> collect_overlay(uint64_t offset, uint64_t length) const;
  bool overlaps(uint64_t offset, uint64_t length) const;
  // The highest section that holds a node (queued or in flight) which touches the range, or 0.
  Section pending_section(uint64_t offset, uint64_t length) const;

  // The highest section that ever held a node. No caller has reason to ask for one beyond this + 2.
  Section highest_section() const { return highest_; }
  // Every node up to here is durable (written, if the policy is kNever).
  Section durable_section() const { return durable_; }
  // Queued and in flight.
  uint64_t queued_bytes() const { return queued_bytes_; }
  size_t queued_nodes() const { return index_.size(); }
  // Flushes that no sync has been started for.
  size_t flushes_waiting() const { return flushes_.size(); }
  // errno, 0 if sound. For good: no action is handed out any more; the nodes stay, for the overlay.
  int poisoned() const { return poisoned_; }
  // errno of a full disk since which nothing was asked for, or 0.
  int stalled() const { return stalled_; }
  const Counters& counters() const { return counters_; }

 private:
  // native/test: tells states apart.
  friend class RequestQueueInspector;

  using MutableNode = std::shared_ptr<Node>;

  struct SectionAge {
    Section section;
    uint64_t first_queued_at_ms;
  };

  template <typename Visit>
  void for_each_overlapping(uint64_t offset, uint64_t length, Visit visit) const;
  void insert(const MutableNode& node);
  void forget(const Node& node);

  void add_waiter(Waiters* list, Waiters::iterator place, const Waiter& waiter);
  Section lowest_pending() const;
  Section wanted() const;
  bool sync_needed_before(Section section) const;
  bool final_sync_wanted() const;
  void note_ages(uint64_t now_ms);
  Action next_unqueued(Section lowest);
  Action start_write(Section section);
  Action start_sync(Section lowest, bool is_barrier);
  void make_durable(Section section, Waiters* finished);
  void finish_all_waiters(int error, Waiters* finished);

  const SyncPolicy policy_;
  const size_t memory_alignment_;
  const uint64_t idle_limit_ms_;

  // Nodes of unsealed sections; no section is empty.
  std::map<Section, NodesByOffset> queued_;
  // The nodes of the section that is being written, or was not because the disk was full.
  NodesByOffset sealed_;
  Section sealed_section_ = 0;
  // All nodes of both, by offset; equal offsets are versions of a range.
  std::multimap<uint64_t, MutableNode> index_;
  // How many nodes there are of each length: the longest bounds how far before a range an overlapping node can begin.
  std::map<size_t, size_t> lengths_;
  uint64_t queued_bytes_ = 0;

  Section open_ = 1;     // the lowest section that is not sealed
  Section highest_ = 0;  // the highest section that ever held a node
  Section durable_ = 0;
  bool nodes_unsynced_ = false;  // a node was written since the last sync started
  bool data_unsynced_ = false;   // data was written since the last sync started

  Action::Kind outstanding_ = Action::Kind::kIdle;
  Section sync_covers_ = 0;  // what is durable when the running sync succeeds
  Waiters sync_finishes_;    // the flushes that the running sync serves

  // In order of arrival, so of ascending targets: every node up to there must be written before the sync starts.
  Waiters flushes_;
  Waiters awaiting_;  // by ascending targets: the sections that must be durable
  Waiters spare_waiters_;
  Section drain_target_ = 0;     // to be written
  Section idle_target_ = 0;      // to be made durable, for its age
  std::deque<SectionAge> ages_;  // in order of first use; those in front that are durable are dropped

  int poisoned_ = 0;
  int stalled_ = 0;
  Counters counters_;
};

}  // namespace block_queue

#endif  // BLOCK_QUEUE_REQUEST_QUEUE_H_
