import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { BlockQueue } from '../../lib/queue/block-queue.js'
import { makeFolder } from '../support/temp-folder.js'

const program = new URL('./programs/busy-thread.js', import.meta.url)

async function startBusy(path: string, direct: boolean): Promise<Worker> {
  const worker = new Worker(program, { workerData: { path, direct } })
  await new Promise((resolve, reject) => {
    worker.once('message', resolve)
    worker.once('error', reject)
  })
  return worker
}

test('several threads load the addon at once, and are terminated amid their requests', async (t) => {
  const folder = await makeFolder(t)
  for (let round = 0; round < 3; round++) {
    const workers = await Promise.all([
      startBusy(join(folder, `${round}-a`), false),
      startBusy(join(folder, `${round}-b`), true),
      startBusy(join(folder, `${round}-c`), false),
    ])
    t.deepEqual(await Promise.all(workers.map((worker) => worker.terminate())), [1, 1, 1])
  }
  // This thread's own addon has not noticed.
  const path = join(folder, '0-a')
  const queue = await BlockQueue.open(path, { readOnly: true, direct: false, syncPolicy: 'flush' })
  const bytes = new Uint8Array(1)
  await queue.read(bytes, 0)
  t.is(bytes[0], 1)
  await queue.close()
})
