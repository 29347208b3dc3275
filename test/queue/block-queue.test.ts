import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { BlockQueue } from '../../lib/queue/block-queue.js'
import { makeFolder } from '../support/temp-folder.js'
import { type BackendFactory, testBackendContract } from './backend-contract.js'

/** Files through the page cache, or past it; with small writes made on this thread, or not. */
function files(direct: boolean, inlineWrites = false): BackendFactory {
  return async (t: ExecutionContext, options = {}) => {
    const { contents, readOnly = false, syncPolicy = 'flush', idleMs = 0, ...limits } = options
    const path = join(await makeFolder(t), 'file')
    await writeFile(path, contents ?? new Uint8Array(0))
    return BlockQueue.open(path, { readOnly, direct, syncPolicy, idleMs, inlineWrites, ...limits })
  }
}

testBackendContract('page cache', files(false))
testBackendContract('page cache, inline', files(false, true))
testBackendContract('O_DIRECT', files(true))
