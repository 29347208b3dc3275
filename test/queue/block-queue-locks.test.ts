import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { BlockQueue } from '../../lib/queue/block-queue.js'
import { runProgram } from '../support/child.js'
import { makeFolder } from '../support/temp-folder.js'

const options = { direct: false, syncPolicy: 'flush', idleMs: 0 } as const

async function openTwice(t: ExecutionContext): Promise<[BlockQueue, BlockQueue]> {
  const path = join(await makeFolder(t), 'file')
  await writeFile(path, 'x')
  return [
    await BlockQueue.open(path, { ...options, readOnly: false }),
    await BlockQueue.open(path, { ...options, readOnly: true }),
  ]
}

test('a lock that is held is found by another opening in the same process', async (t) => {
  const [one, other] = await openTwice(t)
  t.is(one.lock([100, 101, 203], [200, 201, 203]), undefined)
  t.is(other.lock([100, 201], [200, 101, 103]), 101, 'the first byte of those tested that somebody holds')
  t.is(other.lock([], [203]), 203)
  t.is(other.lock([100], [200]), undefined, 'sharing is allowed')
  t.is(one.lock([], [100]), 100, 'found the other way round too')
  await one.close()
  await other.close()
})

test('after a conflict nothing new is held, and what was held before still is', async (t) => {
  const [one, other] = await openTwice(t)
  t.is(one.lock([101], []), undefined)
  t.is(other.lock([100], []), undefined)
  t.is(other.lock([100, 201, 203], [101]), 101)
  t.is(one.lock([], [201]), undefined, 'taken back')
  t.is(one.lock([], [203]), undefined, 'taken back')
  t.is(one.lock([], [100]), 100, 'kept')
  await one.close()
  await other.close()
})

test('a lock is free after unlocking, after closing, and for its own holder', async (t) => {
  const [one, other] = await openTwice(t)
  t.is(one.lock([100, 101], [100, 101]), undefined, "one's own locks are no conflict")
  t.is(other.lock([], [100]), 100)
  one.unlock([100, 102])
  t.is(other.lock([], [100]), undefined)
  t.is(other.lock([], [101]), 101)
  await one.close()
  t.is(other.lock([], [101]), undefined)
  await other.close()
})

test('a lock ends with the process that held it', async (t) => {
  const path = join(await makeFolder(t), 'file')
  await writeFile(path, 'x')
  const program = new URL('./programs/hold-lock.js', import.meta.url)
  const result = await runProgram(program, [path])
  t.is(result.stdout.trim(), 'undefined', result.stderr)
  const queue = await BlockQueue.open(path, { ...options, readOnly: false })
  t.is(queue.lock([100], [100, 101, 201]), undefined)
  await queue.close()
})

test('locking a closed file is refused', async (t) => {
  const [one, other] = await openTwice(t)
  await one.close()
  await other.close()
  t.throws(() => one.lock([100], []), { code: 'ERR_CLOSED' })
})
