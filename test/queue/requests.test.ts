import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { addon } from '../../lib/native/addon.js'
import { BlockQueue } from '../../lib/queue/block-queue.js'
import { requests } from '../../lib/queue/requests.js'
import { makeFolder } from '../support/temp-folder.js'

async function open(t: ExecutionContext, direct = false): Promise<BlockQueue> {
  const path = join(await makeFolder(t), 'file')
  await writeFile(
    path,
    new Uint8Array(1024 ** 2).map((_, index) => index % 251),
  )
  return BlockQueue.open(path, { readOnly: false, direct, syncPolicy: 'flush', idleMs: 0 })
}

test('there is one of them in a thread', (t) => {
  t.is(requests(), requests())
})

for (const direct of [false, true]) {
  test(`more requests than fit in one batch all come back, each with its own bytes, direct: ${direct}`, async (t) => {
    const queue = await open(t, direct)
    const reads = Array.from({ length: 2000 }, (_, index) => ({
      offset: index * 512,
      bytes: new Uint8Array(512),
    }))
    await Promise.all(reads.map(({ offset, bytes }) => queue.read(bytes, offset)))
    t.true(reads.every(({ offset, bytes }) => bytes.every((byte, index) => byte === (offset + index) % 251)))
    await queue.close()
  })
}

test('requests of several files in one batch go to their own', async (t) => {
  const queues = await Promise.all([open(t), open(t, true), open(t)])
  await Promise.all(queues.map((queue, index) => queue.write(new Uint8Array(4096).fill(index + 1), 4096)))
  const seen = await Promise.all(
    queues.map(async (queue) => {
      const bytes = new Uint8Array(1)
      await queue.read(bytes, 5000)
      return bytes[0]
    }),
  )
  t.deepEqual(seen, [1, 2, 3])
  await Promise.all(queues.map((queue) => queue.close()))
})

test('reading without end leaves timers their turn', async (t) => {
  const queue = await open(t)
  const bytes = new Uint8Array(512)
  let reads = 0
  let over = false
  setTimeout(() => {
    over = true
  }, 20)
  while (!over) {
    await queue.read(bytes, (reads % 2000) * 512)
    reads++
  }
  t.true(reads > 0)
  await queue.close()
})

// The files of a thread share how much may be done without a turn: these run alone.
test.serial(
  'small writes are made on this thread where that is asked for, so many before the event loop has a turn',
  async (t) => {
    const { mostAtOnce, longestAtOnce } = addon().constants
    const path = join(await makeFolder(t), 'file')
    await writeFile(path, new Uint8Array(1024 ** 2))
    const written = (offset: number): number => readFileSync(path)[offset] as number
    const queue = await BlockQueue.open(path, {
      readOnly: false,
      direct: false,
      syncPolicy: 'flush',
      inlineWrites: true,
    })
    const piece = new Uint8Array(512).fill(1)
    await new Promise((resolve) => setImmediate(resolve))
    const long = queue.write(new Uint8Array(longestAtOnce + 1).fill(1), 2 ** 19)
    t.is(written(2 ** 19), 0, 'too long for this thread')
    await long

    const [first, second] = [queue.write(piece, 2 ** 18), queue.write(piece, 2 ** 18 + 512)]
    t.is(written(2 ** 18), 1)
    t.is(written(2 ** 18 + 512), 0, 'of several at the same time those behind the first go together')
    await Promise.all([first, second])

    let done = 0
    const oneByOne = (async () => {
      for (; done < 3 * mostAtOnce; done++) await queue.write(piece, done * 512)
    })()
    // When promises do not go on any more.
    await new Promise((resolve) => process.nextTick(resolve))
    // One that takes long, as on a busy machine, is the last for a while.
    t.true(done > 0 && done <= mostAtOnce, `${done} before the event loop has a turn`)
    await oneByOne
    const contents = readFileSync(path)
    for (let index = 0; index < done; index++) t.is(contents[index * 512], 1)
    t.is(written(2 ** 18 + 512), 1)
    t.is(written(2 ** 19), 1)
    t.is(queue.stats().dataWrites, 3 * mostAtOnce + 3)
    await queue.close()
  },
)

test.serial(
  'a lone small write that had to wait for the event loop is made on this thread as well, if that is asked for',
  async (t) => {
    const { mostAtOnce } = addon().constants
    const native = addon()
    const submit = native.submit.bind(native)
    const path = join(await makeFolder(t), 'file')
    await writeFile(path, '')
    const queue = await BlockQueue.open(path, {
      readOnly: false,
      direct: false,
      syncPolicy: 'flush',
      inlineWrites: true,
    })
    let onThread = 0
    Object.assign(native, {
      submit: (...batch: Parameters<typeof submit>) => {
        const over = submit(...batch)
        onThread += over
        return over
      },
    })
    // One that takes long, as on a busy machine, is the last for a while.
    for (let round = 0; round < 1000 && onThread === 0; round++)
      for (let index = 0; index <= mostAtOnce; index++) await queue.write(new Uint8Array(512), index * 512)
    Object.assign(native, { submit })
    t.true(onThread > 0)
    await queue.close()
  },
)

test.serial('without being asked for no write is made on this thread', async (t) => {
  const queue = await open(t)
  const write = queue.write(new Uint8Array(512).fill(252), 0)
  t.is(readFileSync(queue.path)[0], 0)
  await write
  t.is(readFileSync(queue.path)[0], 252)
  await queue.close()
})

test('one request that fails leaves the others of its batch alone', async (t) => {
  const queue = await open(t)
  const results = await Promise.allSettled([
    queue.write(new Uint8Array(10), 0),
    queue.truncate(2 ** 53 - 4096),
    queue.write(new Uint8Array(10), 10),
  ])
  t.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  )
  await queue.close()
})

test('what would crash the addon is refused by it', async (t) => {
  const queue = await open(t)
  const all = requests()
  const bytes = new Uint8Array(100)
  // Memory that is too short, that was transferred, or is none; a file that there is not; numbers that are none.
  await t.throwsAsync(all.send(queue, 'read', 0, 101, bytes), { message: /^EFAULT/ })
  await t.throwsAsync(all.send(queue, 'write', 0, 100), { message: /^EFAULT/ })
  await t.throwsAsync(all.send(queue, 'read', 0, 4, new Float64Array(8) as unknown as Uint8Array), {
    message: /^EFAULT/,
  })
  structuredClone(bytes, { transfer: [bytes.buffer] })
  await t.throwsAsync(all.send(queue, 'write', 0, 100, bytes), { message: /^EFAULT/ })
  for (const number of [Number.NaN, -1, 0.5, Number.POSITIVE_INFINITY, 2 ** 53]) {
    await t.throwsAsync(all.send(queue, 'read', number, 1, new Uint8Array(1)), { message: /^EINVAL/ })
    await t.throwsAsync(all.send(queue, 'write', 0, number, new Uint8Array(1)), { message: /^EINVAL/ })
  }
  await t.throwsAsync(all.send(queue, 'punch', 2 ** 53 - 2, 2), { message: /^EINVAL/ })
  const nobody = {
    number: 4_000_000,
    failure: () => new Error('nobody'),
    settled: () => {},
    progressed: () => {},
  }
  await t.throwsAsync(all.send(nobody, 'flush', 0, 0), { message: 'nobody' })
  await queue.close()
})
