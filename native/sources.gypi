{
  "variables": {
    "native_sources": [
      "native/addon.cc",
      "native/block_queue.cc",
      "native/codec.cc",
      "native/completion.cc",
      "native/direct_io.cc",
      "native/environment.cc",
      "native/file.cc",
      "native/file_log.cc",
      "native/file_windows.cc",
      "native/host_windows.cc",
      "native/io_log.cc",
      "native/io_pool.cc",
      "native/io_ring.cc",
      "native/large_pages.cc",
      "native/loop_watch.cc",
      "native/queued_file.cc",
      "native/request_queue.cc",
      "native/request_queue_binding.cc",
      "native/uring.cc",
      "native/worker.cc",
      "native/write_gate.cc",
      "native/zlib_codec.cc",
      "native/zstd_codec.cc"
    ],
    "native_defines": [
      "NAPI_VERSION=9",
      "NAPI_DISABLE_CPP_EXCEPTIONS",
      "NODE_ADDON_API_ENABLE_TYPE_CHECK_ON_AS",
      "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
      "NODE_API_NO_EXTERNAL_BUFFERS_ALLOWED",
      "NOMINMAX",
      "_FILE_OFFSET_BITS=64"
    ]
  }
}
