import test from 'ava'
import { type HostOffset, hostOffset } from '../../lib/base/units.js'
import { type Slice, TableCache } from '../../lib/qcow2/table-cache.js'
import { newBackend } from '../support/qcow2-disk.js'
import type { StagedBackend } from '../support/staged-backend.js'

const sliceSize = 512
/** The smallest cache there is. */
const fewest = 16

const place = (index: number): HostOffset => hostOffset(index * sliceSize)

/** A file whose slice number n is filled with byte n, and a cache over it. */
async function setUp(
  limitBytes = 0,
  onLoad: () => void = () => undefined,
): Promise<{ backend: StagedBackend; cache: TableCache }> {
  const backend = newBackend()
  for (let index = 0; index < 100; index++) {
    await backend.write(new Uint8Array(sliceSize).fill(index), index * sliceSize)
  }
  return { backend, cache: new TableCache(backend, sliceSize, limitBytes, onLoad) }
}

async function loaded(cache: TableCache, index: number): Promise<Slice> {
  await cache.load(place(index))
  const slice = cache.get(place(index))
  if (slice === undefined) throw new Error(`slice ${index} is not there`)
  return slice
}

const present = (cache: TableCache): number[] =>
  [...Array(100).keys()].filter((index) => cache.get(place(index)) !== undefined)

test('what is not to be believed once it was read does not get in', async (t) => {
  let isLost = true
  const { cache } = await setUp(0, () => {
    if (isLost) throw new Error('lost')
  })
  await t.throwsAsync(cache.load(place(7)), { message: 'lost' })
  t.is(cache.get(place(7)), undefined)
  isLost = false
  t.is((await loaded(cache, 7)).bytes[0], 7)
})

test('a slice that is not there is loaded with what the file holds', async (t) => {
  const { cache } = await setUp()
  t.is(cache.get(place(7)), undefined)
  const slice = await loaded(cache, 7)
  t.is(slice.host, place(7))
  t.true(slice.bytes.every((byte) => byte === 7))
  t.is(slice.view.getUint32(508), 0x07070707)
})

test('a load sees nodes that still wait in the queue', async (t) => {
  const { backend, cache } = await setUp()
  backend.enqueue(new Uint8Array(sliceSize).fill(200), 5 * sliceSize, 0 as never)
  t.true((await loaded(cache, 5)).bytes.every((byte) => byte === 200))
})

test('two who want the same slice share one load', async (t) => {
  const { backend, cache } = await setUp()
  await Promise.all([cache.load(place(3)), cache.load(place(3))])
  t.is(backend.log.filter(({ kind }) => kind === 'readQueued').length, 1)
})

test('a full cache keeps what was used lately and forgets what was not', async (t) => {
  const { cache } = await setUp()
  for (let index = 0; index < fewest; index++) await loaded(cache, index)
  // The first insertion into a full cache passes once over all and takes their second chance.
  await loaded(cache, 50)
  for (const kept of [2, 4, 6]) cache.get(place(kept))
  for (let index = 60; index < 66; index++) await cache.load(place(index))
  const left = present(cache)
  t.is(left.length, fewest)
  for (const kept of [2, 4, 6]) t.true(left.includes(kept), `${kept} was used`)
  t.false(left.includes(1), 'nobody used it')
})

test('a pinned slice stays, whatever else is loaded', async (t) => {
  const { cache } = await setUp()
  const slice = await loaded(cache, 0)
  slice.pins++
  for (let index = 1; index < 100; index++) await cache.load(place(index))
  t.is(cache.get(place(0)), slice)
  t.true(slice.bytes.every((byte) => byte === 0))
  slice.pins--
})

test('when all slices are pinned the cache grows, and shrinks again when they are not', async (t) => {
  const { cache } = await setUp()
  const pinned: Slice[] = []
  for (let index = 0; index < 40; index++) {
    const slice = await loaded(cache, index)
    slice.pins++
    pinned.push(slice)
  }
  t.is(present(cache).length, 40)
  for (const slice of pinned) slice.pins--
  for (let index = 40; index < 100; index++) await cache.load(place(index))
  t.is(present(cache).length, fewest)
})

test('no two slices share bytes, whatever was evicted and dropped in between', async (t) => {
  const { cache } = await setUp()
  for (let round = 0; round < 300; round++) {
    const index = (round * 37) % 100
    if (round % 5 === 0) cache.drop(place((round * 11) % 100), 3 * sliceSize)
    if (cache.get(place(index)) === undefined) await cache.load(place(index))
    const starts = present(cache).map((at) => {
      const slice = cache.get(place(at))
      return slice === undefined ? '' : `${slabNumber(slice.bytes.buffer)}:${slice.bytes.byteOffset}`
    })
    t.is(new Set(starts).size, starts.length, `round ${round}`)
    for (const at of present(cache)) t.is(cache.get(place(at))?.bytes[100], at, `round ${round}, slice ${at}`)
  }
})

const slabs: ArrayBufferLike[] = []
function slabNumber(slab: ArrayBufferLike): number {
  if (!slabs.includes(slab)) slabs.push(slab)
  return slabs.indexOf(slab)
}

test('a table that is dropped while it is loaded does not come back', async (t) => {
  const { backend, cache } = await setUp()
  const read = backend.hold(({ kind }) => kind === 'readQueued')
  const load = cache.load(place(9))
  await read.reached
  cache.drop(place(8), 4 * sliceSize)
  read.release()
  await load
  t.is(cache.get(place(9)), undefined)
})

test('a new table is zeros although the load of its predecessor is still under way', async (t) => {
  const { backend, cache } = await setUp()
  const read = backend.hold(({ kind }) => kind === 'readQueued')
  const load = cache.load(place(9))
  await read.reached
  const slice = cache.insertZeros(place(9))
  slice.view.setUint32(0, 0x12345678)
  read.release()
  await load
  t.is(cache.get(place(9)), slice)
  t.is(slice.view.getUint32(0), 0x12345678)
  t.true(slice.bytes.subarray(4).every((byte) => byte === 0))
})

test('a load that was dropped does not end the one that came after it', async (t) => {
  const { backend, cache } = await setUp()
  const first = backend.hold(({ kind }) => kind === 'readQueued')
  const dropped = cache.load(place(9))
  await first.reached
  cache.drop(place(9), sliceSize)
  const second = backend.hold(({ kind }) => kind === 'readQueued')
  const wanted = cache.load(place(9))
  await second.reached
  first.release()
  await dropped
  t.is(cache.get(place(9)), undefined)
  const shared = cache.load(place(9))
  second.release()
  await Promise.all([wanted, shared])
  t.is(cache.get(place(9))?.bytes[0], 9)
  t.is(backend.log.filter(({ kind }) => kind === 'readQueued').length, 2)
})

test('a table in use cannot be dropped', async (t) => {
  const { cache } = await setUp()
  const slice = await loaded(cache, 1)
  slice.pins++
  t.throws(() => cache.drop(place(0), 4 * sliceSize), { name: 'AssertionError' })
})

test('a load that fails tells all who wait, and the next one tries again', async (t) => {
  const { backend, cache } = await setUp()
  const failure = new Error('unreadable')
  backend.fail(({ kind }) => kind === 'readQueued', failure, 1)
  const outcomes = await Promise.allSettled([cache.load(place(2)), cache.load(place(2))])
  t.deepEqual(
    outcomes.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  t.is(cache.get(place(2)), undefined)
  t.is((await loaded(cache, 2)).bytes[0], 2)
})

test('many loads at once into the smallest cache all come to an end', async (t) => {
  const { cache } = await setUp()
  const seen = await Promise.all(
    Array.from({ length: 100 }, async (_, index) => {
      for (;;) {
        const slice = cache.get(place(index))
        if (slice !== undefined) return slice.bytes[0]
        await cache.load(place(index))
      }
    }),
  )
  t.deepEqual(seen, [...Array(100).keys()])
})

test('cleared, it forgets all, and what is being loaded does not come back', async (t) => {
  const { cache } = await setUp()
  const slice = await loaded(cache, 1)
  const loading = cache.load(place(2))
  cache.clear()
  await loading
  t.deepEqual(present(cache), [])
  t.is((await loaded(cache, 1)).bytes[0], 1)
  slice.pins = 0
  const pinned = await loaded(cache, 3)
  pinned.pins++
  t.throws(() => cache.clear(), { message: /in use/ })
})
