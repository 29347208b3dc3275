import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { alignDown, alignUp } from '../../lib/base/integers.js'
import { noSection } from '../../lib/base/units.js'
import { alignedBytes } from '../../lib/native/aligned-memory.js'
import { BlockQueue } from '../../lib/queue/block-queue.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'
import { sameBytes } from './backend-contract.js'

// Requests of any alignment past the page cache: units are read, changed and written back, and neighbours must not suffer.

async function openDirect(
  t: ExecutionContext,
  contents: Uint8Array = new Uint8Array(0),
): Promise<BlockQueue> {
  const path = join(await makeFolder(t), 'file')
  await writeFile(path, contents)
  return BlockQueue.open(path, { readOnly: false, direct: true, syncPolicy: 'flush', idleMs: 0 })
}

/** Cut `size` bytes into pieces that lie side by side, in random order. */
function pieces(random: SeededRandom, size: number, longest: number): { offset: number; length: number }[] {
  const all: { offset: number; length: number }[] = []
  for (let offset = 0; offset < size;) {
    const length = Math.min(random.between(1, longest), size - offset)
    all.push({ offset, length })
    offset += length
  }
  return shuffled(random, all)
}

function shuffled<T>(random: SeededRandom, items: readonly T[]): T[] {
  const left = [...items]
  return items.flatMap(() => left.splice(random.integer(left.length), 1))
}

for (const { longest, size } of [
  { longest: 300, size: 64 * 1024 },
  { longest: 3000, size: 256 * 1024 },
  { longest: 100_000, size: 4 * 1024 ** 2 },
]) {
  test(`concurrent odd writes of up to ${longest} bytes side by side all arrive`, async (t) => {
    const seed = seedOfRun()
    t.log(`seed ${seed}`)
    const random = new SeededRandom(seed)
    const queue = await openDirect(t)
    const model = new Uint8Array(size)
    await Promise.all(
      pieces(random, size, longest).map(({ offset, length }) => {
        const bytes = random.bytes(length)
        model.set(bytes, offset)
        return queue.write(bytes, offset)
      }),
    )
    await queue.close()
    sameBytes(t, await readFile(queue.path), model)
  })
}

test('odd writes, whole units, zeroes, holes, nodes and reads at once leave what a byte array holds', async (t) => {
  const seed = seedOfRun()
  t.log(`seed ${seed}`)
  const random = new SeededRandom(seed)
  const size = 256 * 1024
  const queue = await openDirect(t, random.bytes(size))
  const model = new Uint8Array(await readFile(queue.path))
  const { alignment } = queue
  for (let round = 0; round < 30; round++) {
    const before = model.slice()
    // Requests of one round do not overlap, but share units; the next round waits for them.
    const work = pieces(random, size, 9000).map(async ({ offset, length }) => {
      const action = random.integer(10)
      const begin = alignUp(offset, alignment)
      const whole = alignDown(offset + length, alignment) - begin
      if (action === 0) {
        const bytes = new Uint8Array(length)
        await queue.read(bytes, offset)
        sameBytes(t, bytes, before.slice(offset, offset + length), `read at ${offset}, round ${round}`)
      } else if (action === 1) {
        model.fill(0, offset, offset + length)
        await queue.writeZeroes(offset, length, { unmap: random.chance(0.5) })
      } else if (action === 2 && whole > 0) {
        const bytes = random.bytes(whole)
        model.set(bytes, begin)
        queue.enqueue(bytes, begin, noSection)
        if (random.chance(0.3)) await queue.flush()
      } else if (action === 3 && whole > 0) {
        const bytes = alignedBytes(whole)
        bytes.set(random.bytes(whole))
        model.set(bytes, begin)
        await queue.write(bytes, begin)
      } else {
        const bytes = random.bytes(length)
        model.set(bytes, offset)
        await queue.write(bytes, offset)
      }
    })
    await Promise.all(work)
    await queue.flush()
    const now = new Uint8Array(size)
    await queue.read(now, 0)
    sameBytes(t, now, model, `round ${round}`)
  }
  await queue.close()
  sameBytes(t, await readFile(queue.path), model)
})

test('an odd write at the end makes the file as long as the request says, no longer', async (t) => {
  const queue = await openDirect(t)
  for (const { offset, length, size } of [
    { offset: 0, length: 1, size: 1 },
    { offset: 5000, length: 3, size: 5003 },
    { offset: 4999, length: 2, size: 5003 },
    { offset: 5003, length: 5000, size: 10_003 },
    { offset: 8192, length: 4096, size: 12_288 },
    { offset: 12_288, length: 100, size: 12_388 },
  ]) {
    await queue.write(new Uint8Array(length).fill(1), offset)
    t.is((await stat(queue.path)).size, size)
  }
  await queue.writeZeroes(20_000, 77, { unmap: true })
  t.is((await stat(queue.path)).size, 20_077)
  await queue.allocate(20_000, 1000)
  t.is((await stat(queue.path)).size, 21_000)
  await queue.punch(30_000, 1000)
  t.is((await stat(queue.path)).size, 21_000)
  await queue.close()
})

test('writes that extend the file at once, odd and whole, lose no bytes to one another', async (t) => {
  const seed = seedOfRun()
  t.log(`seed ${seed}`)
  const random = new SeededRandom(seed)
  for (let round = 0; round < 20; round++) {
    const queue = await openDirect(t)
    const size = random.between(20_000, 60_000)
    const model = new Uint8Array(size)
    await Promise.all(
      pieces(random, size, 6000).map(({ offset, length }) => {
        const bytes = random.bytes(length)
        model.set(bytes, offset)
        return queue.write(bytes, offset)
      }),
    )
    await queue.close()
    sameBytes(t, await readFile(queue.path), model, `round ${round}`)
  }
})

test('shortening the file among odd writes below the cut keeps those', async (t) => {
  const queue = await openDirect(t, new Uint8Array(100_000).fill(9))
  const model = new Uint8Array(10_001).fill(9)
  const work: Promise<void>[] = []
  for (let index = 0; index < 20; index++) {
    const bytes = new Uint8Array(333).fill(index + 1)
    model.set(bytes, index * 500)
    work.push(queue.write(bytes, index * 500))
    if (index === 10) work.push(queue.truncate(10_001))
  }
  await Promise.all(work)
  await queue.close()
  sameBytes(t, await readFile(queue.path), model)
})
