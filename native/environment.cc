#include "environment.h"

#include <errno.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "block_queue.h"
#include "count.h"
#include "room.h"

namespace block_queue {

namespace {

// Two threads keep the page cache busy; more only fight for the processor. A disk wants many requests at once.
constexpr size_t kMostCachedThreads = 2;
constexpr size_t kMostDirectThreads = 16;

// What packs and unpacks wants all processors, and one of its threads may wait for the disk. More of them only fight
// for the processors' caches: each has a megabyte of its own.
size_t most_codec_threads() { return std::min(size_t{std::thread::hardware_concurrency()} + 1, kMostDirectThreads); }

// Requests that are out; for more than these, memory is asked for.
constexpr size_t kLeastRoom = 64;

constexpr auto kShutDownTime = std::chrono::seconds(2);

// The bytes of memory that a request must bring along, if it needs any.
std::optional<uint64_t> memory_needed(const Job& job) {
  switch (job.operation) {
    case Operation::kRead:
    case Operation::kReadQueued:
    case Operation::kWrite:
    case Operation::kWriteDurably:
      return job.length;
    case Operation::kReadZlib:
    case Operation::kReadZstd:
      return 1;
    default:
      return std::nullopt;
  }
}

// Find the memory of a Uint8Array of at least `least` bytes: false if it is none.
bool find_memory(napi_env env, napi_value buffers, uint32_t index, uint64_t least, Job* job) {
  napi_value buffer;
  bool is_typed_array = false;
  if (napi_get_element(env, buffers, index, &buffer) != napi_ok) return false;
  if (napi_is_typedarray(env, buffer, &is_typed_array) != napi_ok || !is_typed_array) return false;
  napi_typedarray_type type;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, buffer, &type, &job->room, &data, nullptr, nullptr) != napi_ok) return false;
  job->data = static_cast<uint8_t*>(data);
  return type == napi_uint8_array && job->room >= least && job->data != nullptr;
}

bool packs(Operation operation) { return operation == Operation::kPackZlib || operation == Operation::kPackZstd; }

// Whether it is the work of a processor, not of a disk.
bool is_of_codec(Operation operation) {
  return packs(operation) || operation == Operation::kReadZlib || operation == Operation::kReadZstd;
}

// Find the memory of a job that packs: an array of where to, and of what. false if it is none.
bool find_both(napi_env env, napi_value buffers, uint32_t index, Job* job) {
  napi_value pair;
  bool is_array = false;
  Job source;
  if (napi_get_element(env, buffers, index, &pair) != napi_ok) return false;
  if (napi_is_array(env, pair, &is_array) != napi_ok || !is_array) return false;
  if (!find_memory(env, pair, 0, 1, job) || !find_memory(env, pair, 1, job->length, &source)) return false;
  job->source = source.data;
  return true;
}

// false: it needs memory, and brought none.
bool find_memory_of(napi_env env, napi_value buffers, uint32_t index, Job* job) {
  if (packs(job->operation)) return find_both(env, buffers, index, job);
  const std::optional<uint64_t> needed = memory_needed(*job);
  return !needed || find_memory(env, buffers, index, *needed, job);
}

void refuse(Napi::Env env, const char* what) { Napi::TypeError::New(env, what).ThrowAsJavaScriptException(); }

bool is_float64_array(const Napi::Value& value, size_t least_length) {
  if (!value.IsTypedArray()) return false;
  const Napi::TypedArray array = value.As<Napi::TypedArray>();
  return array.TypedArrayType() == napi_float64_array && array.ElementLength() >= least_length;
}

}  // namespace

Environment::Environment(Napi::Env env)
    : completions_(env, [this](Napi::Env environment) { deliver(environment, /*from_loop=*/false); }),
      cached_pool_(kMostCachedThreads, /*gather=*/true, &completions_),
      direct_pool_(kMostDirectThreads, /*gather=*/false, &completions_),
      codec_pool_(most_codec_threads(), /*gather=*/false, &completions_) {
  cached_jobs_.reserve(kMostCompletions);
  direct_jobs_.reserve(kMostCompletions);
  codec_jobs_.reserve(kMostCompletions);
  asked_.reserve(kMostCompletions);
  questions_.reserve(kMostCompletions);
  delivered_.reserve(kMostCompletions);
  progressed_.reserve(kMostFiles);
}

std::shared_ptr<Environment> Environment::of(Napi::Env env) {
  if (const auto* existing = env.GetInstanceData<std::shared_ptr<Environment>>()) return *existing;
  auto made = std::make_unique<std::shared_ptr<Environment>>(std::make_shared<Environment>(env));
  const std::shared_ptr<Environment> environment = *made;
  // Hooks run in reverse order: this one before that of the thread-safe function, which the threads still call.
  // First of all: without it nobody would end the threads. What comes after it needs no memory.
  env.AddCleanupHook([environment] { environment->shut_down(); });
  env.SetInstanceData(made.release());
  return environment;
}

Napi::Value Environment::start(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsFunction() || !is_float64_array(info[1], kMostCompletions * kNumbersPerCompletion) ||
      !is_float64_array(info[2], kMostFiles)) {
    refuse(env, "start(deliver, completions, files) takes a function and two arrays that are long enough");
    return {};
  }
  deliver_ = Napi::Persistent(info[0].As<Napi::Function>());
  completion_array_ = Napi::Persistent(info[1].As<Napi::Float64Array>());
  file_array_ = Napi::Persistent(info[2].As<Napi::Float64Array>());
  completion_numbers_ = info[1].As<Napi::Float64Array>().Data();
  file_numbers_ = info[2].As<Napi::Float64Array>().Data();
  return env.Undefined();
}

Napi::Value Environment::submit(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const double count_asked = info[2].IsNumber() ? info[2].As<Napi::Number>().DoubleValue() : -1;
  if (deliver_.IsEmpty() || !is_count(count_asked) || count_asked > kMostCompletions || !info[1].IsArray() ||
      !is_float64_array(info[0], static_cast<size_t>(count_asked) * kNumbersPerRequest)) {
    refuse(env, "submit(requests, buffers, count) takes two arrays and how much of them counts, after start()");
    return {};
  }
  const double* number = info[0].As<Napi::Float64Array>().Data();
  const auto count = static_cast<uint32_t>(count_asked);
  uint32_t over_count = 0;
  at_once_left_ = kMostAtOnce;
  for (uint32_t i = 0; i < count; ++i, number += kNumbersPerRequest) {
    Job job;
    int error = 0;
    const bool is_file = is_count(number[0]) && number[0] <= static_cast<double>(UINT32_MAX);
    const auto queue = is_file ? queues_.find(static_cast<uint32_t>(number[0])) : queues_.end();
    if (!std::all_of(number, number + kNumbersPerRequest, is_count) ||
        number[1] > static_cast<double>(Operation::kLast) || number[3] + number[4] > kLargestExactInteger) {
      error = EINVAL;
    } else if (queue == queues_.end() || is_shut_down_) {
      error = EBADF;
    } else {
      job.file = queue->second->file();
      job.operation = static_cast<Operation>(static_cast<uint8_t>(number[1]));
      job.request = static_cast<uint64_t>(number[2]);
      job.offset = static_cast<uint64_t>(number[3]);
      job.length = static_cast<uint64_t>(number[4]);
      if (!find_memory_of(env, info[1], i, &job)) error = EFAULT;
    }
    bool is_over = false;
    if (error == 0) error = begin(std::move(job), &is_over);
    if (error == 0 && !is_over) {
      ++requests_out_;
      continue;
    }
    double* const entry = completion_numbers_ + size_t{over_count++} * kNumbersPerCompletion;
    entry[0] = number[2];
    entry[1] = error;
    entry[2] = 0;
  }
  ask();
  write_at_once(&over_count);
  cached_pool_.submit(&cached_jobs_);
  if (ring_ && ring_->submit(&direct_jobs_, /*may_wait=*/requests_out_ == 1 && over_count == 0)) {
    completions_.take(kMostCompletions, 0, /*unasked=*/true, &delivered_, &progressed_);
    put_delivered();
    over_count = static_cast<uint32_t>(delivered_.size());
  }
  direct_pool_.submit(&direct_jobs_);
  codec_pool_.submit(&codec_jobs_);
  hold();
  return Napi::Number::New(env, over_count);
}

// An errno; or 0, when the request is on its way, or over at once. Whatever it needs on its way it has then: a request
// that has been accepted is carried out, and told.
int Environment::begin(Job job, bool* is_over) {
  QueuedFile* const file = job.file.get();
  if (job.operation != Operation::kOpen && !file->is_open()) return EBADF;
  try {
    *is_over = read_at_once(job);
    if (*is_over) return 0;
    // There has been room for its close since the file was made: a file can be closed without memory.
    if (job.operation != Operation::kClose) make_room(1);
    if (job.operation == Operation::kFlush || job.operation == Operation::kDurable) {
      const bool is_flush = job.operation == Operation::kFlush;
      asked_.push_back({file, {job.request, is_flush ? std::nullopt : std::optional<Section>(job.offset)}});
    } else {
      std::vector<Job>* const plain = file->is_direct() ? &direct_jobs_ : &cached_jobs_;
      file->submit(std::move(job), is_of_codec(job.operation) ? &codec_jobs_ : plain);
    }
  } catch (const std::bad_alloc&) {
    return ENOMEM;
  }
  return 0;
}

bool Environment::read_at_once(const Job& job) {
  if (at_once_left_ == 0 || !job.file->perform_at_once(job)) return false;
  --at_once_left_;
  return true;
}

// Make what may be written on this thread, neighbours with one call; the rest of the batch stays.
void Environment::write_at_once(uint32_t* over_count) {
  size_t left = 0;
  for (size_t first = 0, count = 0; first < cached_jobs_.size(); first += count) {
    Job* const jobs = cached_jobs_.data() + first;
    count = QueuedFile::count_together(jobs, cached_jobs_.size() - first, Scratch::kBytes);
    const bool is_over = count <= at_once_left_ && QueuedFile::write_together_at_once(jobs, count);
    if (is_over) {
      at_once_left_ -= count;
      requests_out_ -= count;
    }
    for (size_t i = 0; i < count; ++i) {
      if (is_over) {
        put({jobs[i].request, 0, 0}, (*over_count)++);
      } else {
        if (left != first + i) cached_jobs_[left] = std::move(jobs[i]);
        ++left;
      }
    }
  }
  cached_jobs_.resize(left);
}

// Put the questions of this batch to their files: all those to one file together, in the order they came.
void Environment::ask() {
  for (size_t first = 0; first < asked_.size(); ++first) {
    QueuedFile* const file = asked_[first].file;
    if (file == nullptr) continue;
    questions_.clear();
    for (size_t i = first; i < asked_.size(); ++i) {
      if (asked_[i].file != file) continue;
      questions_.push_back(asked_[i].question);
      asked_[i].file = nullptr;
    }
    file->submit(questions_.data(), questions_.size());
  }
  asked_.clear();
}

// For so many more requests, or files. Throws std::bad_alloc.
void Environment::make_room(size_t more) {
  const size_t needed = requests_out_ + files_.size() + more;
  if (needed <= room_) return;
  const size_t room = std::max({needed, 2 * room_, kLeastRoom});
  completions_.make_room(room, files_.size());
  cached_pool_.make_room(room);
  direct_pool_.make_room(room);
  codec_pool_.make_room(room);
  room_ = room;
}

void Environment::deliver(Napi::Env env, bool from_loop) {
  completions_.take(kMostCompletions, kMostFiles, /*unasked=*/from_loop, &delivered_, &progressed_);
  put_delivered();
  size_t file_count = 0;
  const Napi::HandleScope scope(env);
  for (const uint32_t number : progressed_) {
    const auto queue = queues_.find(number);
    if (queue == queues_.end()) continue;
    queue->second->refresh();
    file_numbers_[file_count++] = number;
  }
  hold();
  if (!delivered_.empty() || file_count > 0) tell(env, delivered_.size(), file_count, from_loop);
}

void Environment::put_delivered() {
  requests_out_ -= delivered_.size();
  for (size_t i = 0; i < delivered_.size(); ++i) put(delivered_[i], i);
}

void Environment::put(const Completion& completion, size_t place) {
  double* const entry = completion_numbers_ + place * kNumbersPerCompletion;
  entry[0] = static_cast<double>(completion.request);
  entry[1] = completion.error;
  entry[2] = completion.value;
}

void Environment::tell(Napi::Env env, size_t completion_count, size_t file_count, bool from_loop) {
  // By Node-API itself: when the thread is being terminated this fails, and nothing is to be thrown then. What deliver
  // throws stays pending, and becomes an uncaught exception.
  napi_value arguments[2];
  napi_value undefined = env.Undefined();
  napi_create_double(env, static_cast<double>(completion_count), &arguments[0]);
  napi_create_double(env, static_cast<double>(file_count), &arguments[1]);
  if (!from_loop) {
    napi_call_function(env, undefined, deliver_.Value(), 2, arguments, nullptr);
    return;
  }
  napi_value thrown;
  if (napi_make_callback(env, nullptr, env.Global(), deliver_.Value(), 2, arguments, nullptr) != napi_pending_exception)
    return;
  if (napi_get_and_clear_last_exception(env, &thrown) == napi_ok) napi_fatal_exception(env, thrown);
}

void Environment::hold() { completions_.hold(requests_out_ > 0 || moving_files_ > 0); }

void Environment::count_moving(int change) {
  moving_files_ += change;
  hold();
}

void Environment::shut_down() {
  if (std::exchange(is_shut_down_, true)) return;
  const Clock::time_point deadline = Clock::now() + kShutDownTime;
  for (const auto& weak : files_) {
    if (auto file = weak.lock()) ending_files_.push_back(std::move(file));
  }
  for (const auto& file : ending_files_) file->request_stop(deadline);
  if (ring_) ring_->finish();
  cached_pool_.request_stop(deadline);
  direct_pool_.request_stop(deadline);
  codec_pool_.request_stop(deadline);
  cached_pool_.join();
  direct_pool_.join();
  codec_pool_.join();
  for (const auto& file : ending_files_) {
    file->abandon_gate();
    file->request_stop(deadline);  // once more for those that a pool has just opened
    file->join();
  }
  ending_files_.clear();
  ring_.reset();
  completions_.close();
}

bool Environment::has_ring(Napi::Env env) {
  if (is_shut_down_) return false;
  // Asked again each time: a process that has no descriptor left for it may have one later.
  if (!ring_) {
    ring_ = IoRing::make(env, &direct_pool_, &completions_, [this, env] {
      ring_->reap();
      deliver(env, /*from_loop=*/true);
    });
  }
  return ring_ != nullptr;
}

std::shared_ptr<QueuedFile> Environment::add(BlockQueue* queue, QueuedFile::Options options, uint32_t* number) {
  files_.erase(std::remove_if(files_.begin(), files_.end(), [](const auto& file) { return file.expired(); }),
               files_.end());
  block_queue::make_room(&files_, 1);
  block_queue::make_room(&ending_files_, files_.size() + 1);
  make_room(1);
  completions_.make_room(room_, files_.size() + 1);
  IoPool* const pool = options.open.direct ? &direct_pool_ : &cached_pool_;
  auto file = std::make_shared<QueuedFile>(last_number_ + 1, std::move(options), pool, &completions_);
  queues_.emplace(last_number_ + 1, queue);
  files_.push_back(file);
  *number = ++last_number_;
  return file;
}

std::shared_ptr<QueuedFile> Environment::file(uint64_t number) const {
  if (number > UINT32_MAX) return nullptr;
  const auto found = queues_.find(static_cast<uint32_t>(number));
  return found == queues_.end() ? nullptr : found->second->file();
}

void Environment::remove(uint32_t number) { queues_.erase(number); }

void Environment::close_unasked(std::shared_ptr<QueuedFile> file) {
  if (is_shut_down_ || !file->is_open()) return;
  Job job;
  job.operation = Operation::kClose;
  job.file = std::move(file);
  IoPool* const pool = job.file->is_direct() ? &direct_pool_ : &cached_pool_;
  job.file->close_begins();
  pool->submit(std::move(job));
}

}  // namespace block_queue
