import test from 'ava'
import { section } from '../../lib/base/units.js'
import { type DeviceOperation, MemoryDevice } from '../../lib/queue/memory-device.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'

type Options = ConstructorParameters<typeof MemoryDevice>[0]

function device(options: Partial<Options> = {}): MemoryDevice {
  return new MemoryDevice({
    contents: new SparseBytes(),
    seed: undefined,
    record: false,
    fault: undefined,
    ...options,
  })
}

/** @returns the errno it ends with */
function perform(
  disk: MemoryDevice,
  kind: DeviceOperation['kind'],
  offset: number,
  length: number,
  bytes?: Uint8Array,
): Promise<number> {
  return new Promise((resolve) => {
    disk.perform({ kind, offset, length, section: undefined }, bytes, resolve)
  })
}

test('operations end in a later turn, without a seed in their order', async (t) => {
  const disk = device()
  const ended: number[] = []
  const all = [1, 2, 3].map(async (value) => {
    await perform(disk, 'write', 0, 1, Uint8Array.of(value))
    ended.push(value)
  })
  t.deepEqual(ended, [])
  await Promise.all(all)
  t.deepEqual(ended, [1, 2, 3])
  t.deepEqual([...disk.contents.toBytes()], [3])
})

test('with a seed they end in any order, and each of them once', async (t) => {
  const orders = new Set<string>()
  for (let seed = 0; seed < 50; seed++) {
    const disk = device({ seed })
    const ended: number[] = []
    await Promise.all(
      [1, 2, 3].map(async (value) => {
        await perform(disk, 'write', value, 1, Uint8Array.of(value))
        ended.push(value)
      }),
    )
    t.deepEqual([...disk.contents.toBytes()], [0, 1, 2, 3])
    orders.add(ended.join())
  }
  t.is(orders.size, 6, 'all there are')
})

test('each kind of operation does what it says', async (t) => {
  const disk = device()
  await perform(disk, 'write', 0, 4, Uint8Array.of(1, 2, 3, 4))
  await perform(disk, 'zero', 3, 3)
  t.deepEqual([...disk.contents.toBytes()], [1, 2, 3, 0, 0, 0])
  await perform(disk, 'punch', 1, 100)
  t.deepEqual([...disk.contents.toBytes()], [1, 0, 0, 0, 0, 0])
  await perform(disk, 'allocate', 6, 2)
  t.is(disk.contents.length, 8)
  await perform(disk, 'truncate', 2, 0)
  const bytes = new Uint8Array(3).fill(9)
  await perform(disk, 'read', 0, 3, bytes)
  t.deepEqual([...bytes], [1, 0, 0])
  t.is(await perform(disk, 'sync', 0, 0), 0)
})

test('what fails changes nothing, and the log says so', async (t) => {
  const seen: DeviceOperation[] = []
  const disk = device({
    record: true,
    fault: (operation) => {
      seen.push(operation)
      return operation.index === 1 ? 5 : undefined
    },
  })
  await perform(disk, 'write', 0, 1, Uint8Array.of(1))
  t.is(await perform(disk, 'write', 0, 1, Uint8Array.of(2)), 5)
  t.deepEqual([...disk.contents.toBytes()], [1])
  t.deepEqual(
    seen.map(({ index }) => index),
    [0, 1],
  )
  t.deepEqual(
    disk.log.map((event) => (event.type === 'NEND' ? event.error : event.type)),
    ['NSUB', 0, 'NSUB', 5],
  )
})

test('with the log on, bytes are those that were submitted', async (t) => {
  const disk = device({ record: true })
  const bytes = Uint8Array.of(1)
  const written = perform(disk, 'write', 0, 1, bytes)
  bytes[0] = 2
  await written
  t.deepEqual([...disk.contents.toBytes()], [1])
  t.deepEqual(disk.log[0], {
    type: 'NSUB',
    id: 0,
    kind: 'write',
    offset: 0,
    length: 1,
    section: undefined,
    bytes: Uint8Array.of(1),
  })
})

test('the log knows nodes by their section', (t) => {
  const disk = device({ record: true })
  disk.perform({ kind: 'write', offset: 0, length: 1, section: section(7) }, Uint8Array.of(1), () => {})
  t.like(disk.log[0], { type: 'NSUB', section: 7 })
})

test('what fails may have reached the disk in part', async (t) => {
  const disk = device({ record: true, fault: ({ kind }) => ({ errno: kind === 'sync' ? 0 : 28, done: 2 }) })
  t.is(await perform(disk, 'write', 0, 4, Uint8Array.of(1, 2, 3, 4)), 28)
  t.deepEqual([...disk.contents.toBytes()], [1, 2])
  t.is(await perform(disk, 'zero', 1, 4), 28)
  t.deepEqual([...disk.contents.toBytes()], [1, 0, 0])
  const bytes = new Uint8Array(3).fill(9)
  t.is(await perform(disk, 'read', 0, 3, bytes), 28)
  t.deepEqual([...bytes], [1, 0, 9])
  t.is(await perform(disk, 'truncate', 0, 0), 28)
})

test('what is interrupted goes on later, and succeeds', async (t) => {
  const disk = device({ fault: ({ kind }) => (kind === 'write' ? { errno: 0, split: 1 } : undefined) })
  const written = perform(disk, 'write', 0, 3, Uint8Array.of(1, 2, 3))
  await new Promise((resolve) => setImmediate(resolve))
  t.deepEqual([...disk.contents.toBytes()], [1])
  t.is(await written, 0)
  t.deepEqual([...disk.contents.toBytes()], [1, 2, 3])
})

test('what is slow ends behind what is not', async (t) => {
  const disk = device({ fault: ({ index }) => ({ errno: 0, turns: index === 0 ? 5 : 0 }) })
  const ended: number[] = []
  await Promise.all(
    [0, 1].map(async (index) => {
      await perform(disk, 'punch', 0, 1)
      ended.push(index)
    }),
  )
  t.deepEqual(ended, [1, 0])
})

test('a failing truncate changes nothing', async (t) => {
  const disk = device({ fault: ({ kind }) => (kind === 'truncate' ? 5 : undefined) })
  await perform(disk, 'write', 0, 1, Uint8Array.of(1))
  t.is(await perform(disk, 'truncate', 0, 0), 5)
  t.is(disk.contents.length, 1)
})

test('a failing sync can lose what it should have made durable, and no more', async (t) => {
  const sector = (value: number): Uint8Array => new Uint8Array(512).fill(value)
  let syncs = 0
  const disk = device({
    mayLose: true,
    fault: ({ kind }) => {
      if (kind !== 'sync' || ++syncs !== 2) return undefined
      return { errno: 5, turns: 3, loses: (lost) => lost !== 2 }
    },
  })
  for (const place of [0, 1, 2, 3]) await perform(disk, 'write', place * 512, 512, sector(1))
  t.is(await perform(disk, 'sync', 0, 0), 0)
  for (const place of [1, 2, 3]) await perform(disk, 'write', place * 512, 512, sector(2))
  const failing = perform(disk, 'sync', 0, 0)
  await perform(disk, 'write', 3 * 512, 512, sector(3))
  t.is(await failing, 5)
  const shown = (): number[] => [0, 1, 2, 3].map((place) => disk.contents.toBytes()[place * 512] ?? -1)
  t.deepEqual(shown(), [1, 1, 2, 3], 'the second is lost, the fourth was written again')
  t.is(await perform(disk, 'sync', 0, 0), 0)
  t.deepEqual(shown(), [1, 1, 2, 3])
})

test('what there is no memory for fails, and the disk stays as it was', async (t) => {
  const contents = new SparseBytes()
  contents.write = () => {
    throw new RangeError('Array buffer allocation failed')
  }
  const disk = device({ contents })
  t.is(await perform(disk, 'write', 0, 3, Uint8Array.of(1, 2, 3)), 12)
  t.is(contents.length, 0)
})
