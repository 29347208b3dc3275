import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { BlockQueue } from '../../lib/queue/block-queue.js'
import { hasRing } from '../support/io-uring.js'
import { makeFolder } from '../support/temp-folder.js'
import { type BackendFactory, testBackendContract } from './backend-contract.js'
import { testDurableWrites } from './durable-writes.js'

/** Files through the page cache, or past it; with small writes made on this thread, or not; by threads, or by an io_uring. */
function files(
  direct: boolean,
  more: { inlineWrites?: boolean; aio?: 'threads' | 'io_uring' } = {},
): BackendFactory {
  return async (t: ExecutionContext, options = {}) => {
    const { contents, readOnly = false, syncPolicy = 'flush', idleMs = 0, ...limits } = options
    const path = join(await makeFolder(t), 'file')
    await writeFile(path, contents ?? new Uint8Array(0))
    return BlockQueue.open(path, { readOnly, direct, syncPolicy, idleMs, ...more, ...limits })
  }
}

testBackendContract('page cache', files(false))
testBackendContract('page cache, inline', files(false, { inlineWrites: true }))
testBackendContract('O_DIRECT', files(true))
testDurableWrites('page cache', files(false))
testDurableWrites('page cache, inline', files(false, { inlineWrites: true }))
testDurableWrites('O_DIRECT', files(true))
if (hasRing) testBackendContract('O_DIRECT, io_uring', files(true, { aio: 'io_uring' }))
if (hasRing) testDurableWrites('O_DIRECT, io_uring', files(true, { aio: 'io_uring' }))
