import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import test, { type ExecutionContext } from 'ava'
import { alignedBytes } from '../../lib/native/aligned-memory.js'
import { type Aio, BlockQueue } from '../../lib/queue/block-queue.js'
import { sameBytes } from '../queue/backend-contract.js'
import { runProgram } from '../support/child.js'
import { hasRing } from '../support/io-uring.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

const unit = 4096

async function open(
  t: ExecutionContext,
  contents: Uint8Array,
  options: { direct?: boolean; aio?: Aio; record?: boolean; inlineWaits?: boolean } = {},
): Promise<BlockQueue> {
  const path = join(await makeFolder(t), 'file')
  await writeFile(path, contents)
  return BlockQueue.open(path, { readOnly: false, direct: true, syncPolicy: 'flush', idleMs: 0, ...options })
}

test('a process that is refused an io_uring is told so, and uses threads; refused for lack of descriptors, it may have one later', async (t) => {
  if (process.platform !== 'linux') {
    t.log('skipped: there is no io_uring elsewhere')
    t.pass()
    return
  }
  const path = join(await makeFolder(t), 'file')
  const program = new URL('./programs/no-ring.js', import.meta.url)
  const { stdout, stderr } = await runProgram(program, [path], { around: ['prlimit', '--nofile=100'] })
  const [first, second, third] = stdout.split('\n')
  t.is(
    first,
    `ERR_NOT_SUPPORTED: '${path}' cannot be opened with the cache option aio 'io_uring': it needs Linux 6.1 or later, and a process that may use it`,
    stderr,
  )
  t.false(existsSync(path))
  t.is(second, 'threads 7')
  t.is(third, hasRing ? 'io_uring' : 'refused')
})

test('threads are used where the page cache is, where nothing is said, and where they are asked for', async (t) => {
  for (const options of [{ direct: false, aio: 'io_uring' }, {}, { aio: 'threads' }] as const) {
    const queue = await open(t, new Uint8Array(unit), options)
    t.is(queue.aio, 'threads')
    await queue.close()
  }
})

if (hasRing) {
  test('an io_uring is used where it is asked for', async (t) => {
    const queue = await open(t, new Uint8Array(unit), { aio: 'io_uring' })
    t.is(queue.aio, 'io_uring')
    await queue.close()
  })

  test.serial('a request wakes its thread once', async (t) => {
    const queue = await open(t, new Uint8Array(unit), { aio: 'io_uring' })
    const bytes = alignedBytes(unit)
    const before = performance.nodeTiming.uvMetricsInfo.loopCount
    for (let index = 0; index < 200; index++) await queue.read(bytes, 0)
    // No other test runs at the same time; the test runner has little to say.
    const turns = performance.nodeTiming.uvMetricsInfo.loopCount - before
    t.true(turns < 300, `${turns} turns of the event loop for 200 requests`)
    await queue.close()
  })

  test.serial(
    'a lone request is waited for on its thread if that is asked for, and the event loop still turns',
    async (t) => {
      const queue = await open(t, new Uint8Array(2 * unit), { aio: 'io_uring', inlineWaits: true })
      const bytes = alignedBytes(unit)
      const turnsOf = async (requests: number): Promise<number> => {
        const before = performance.nodeTiming.uvMetricsInfo.loopCount
        for (let index = 0; index < requests; index += 2) {
          bytes.fill(index)
          await queue.write(bytes, unit)
          bytes.fill(255)
          await queue.read(bytes, unit)
          t.is(bytes[1], index)
        }
        return performance.nodeTiming.uvMetricsInfo.loopCount - before
      }
      // After a request that took long none is waited for for a while: then each has a turn.
      const rounds = [await turnsOf(20)]
      while (Math.min(...rounds) > 10 && rounds.length < 1000) rounds.push(await turnsOf(20))
      t.true(Math.min(...rounds) <= 10, `${rounds.join()} turns of the event loop for 20 requests each`)
      const turns = await turnsOf(200)
      t.true(turns >= 3, `${turns} turns of the event loop for 200 requests`)
      const sizes = [1, unit, 16 * unit + unit, unit]
      const pieces = sizes.map((size) => new Uint8Array(size))
      await Promise.all(pieces.map((piece) => queue.read(piece, unit)))
      for (const piece of pieces) t.is(piece[0], 198)
      await queue.close()
      t.is((await readFile(queue.path))[unit], 198)
    },
  )

  test('more requests at once than the ring has room for, from memory of any alignment, all arrive', async (t) => {
    const seed = seedOfRun()
    t.log(`seed ${seed}`)
    const random = new SeededRandom(seed)
    const size = 1000 * 2 * unit
    const queue = await open(t, new Uint8Array(size), { aio: 'io_uring' })
    const model = new Uint8Array(size)
    const memory = (length: number): Uint8Array =>
      random.chance(0.5) ? alignedBytes(length) : new Uint8Array(length + 1).subarray(1)
    const writes: Promise<void>[] = []
    for (let offset = 0; offset < size;) {
      // Neighbours, and some that stand alone.
      if (random.chance(0.2)) offset += unit
      const length = Math.min(random.chance(0.1) ? 20 * unit : unit, size - offset)
      if (length === 0) break
      const bytes = memory(length)
      bytes.set(random.bytes(length))
      model.set(bytes, offset)
      writes.push(queue.write(bytes, offset))
      offset += length
    }
    t.true(writes.length > 400)
    await Promise.all(writes)
    const pieces = Array.from({ length: size / unit }, (_, index) => ({ bytes: memory(unit), index }))
    await Promise.all(pieces.map(({ bytes, index }) => queue.read(bytes, index * unit)))
    for (const { bytes, index } of pieces)
      sameBytes(t, bytes, model.subarray(index * unit, (index + 1) * unit), `unit ${index}`)
    await queue.close()
    sameBytes(t, await readFile(queue.path), model)
  })

  test('reads across the end of the file and past it, alone and as neighbours, give zeros there', async (t) => {
    const length = 5 * unit + 1000
    const queue = await open(t, new Uint8Array(length).fill(3), { aio: 'io_uring' })
    const pieces = Array.from({ length: 8 }, () => alignedBytes(unit).fill(9))
    const long = alignedBytes(8 * unit).fill(9)
    const past = alignedBytes(unit).fill(9)
    await Promise.all([
      ...pieces.map((bytes, index) => queue.read(bytes, index * unit)),
      queue.read(long, 0),
      queue.read(past, 64 * unit),
    ])
    sameBytes(t, past, new Uint8Array(unit))
    const expected = new Uint8Array(8 * unit)
    expected.fill(3, 0, length)
    sameBytes(t, long, expected)
    sameBytes(t, Buffer.concat(pieces), expected)
    await queue.close()
  })

  test('what the kernel refuses is told as a failure of that request alone', async (t) => {
    const queue = await open(t, new Uint8Array(4 * unit), { aio: 'io_uring' })
    const bytes = alignedBytes(unit).fill(4)
    // Beyond what a file of any file system can be.
    const beyond = 2 ** 53 - 2 * unit
    const results = await Promise.allSettled([
      queue.write(bytes, 0),
      queue.write(bytes, beyond),
      queue.write(bytes, unit),
    ])
    t.deepEqual(
      results.map(({ status }) => status),
      ['fulfilled', 'rejected', 'fulfilled'],
    )
    const back = alignedBytes(unit)
    await queue.read(back, unit)
    sameBytes(t, back, bytes)
    await queue.close()
  })
}
