import test from 'ava'
import { RefcountGrowth } from '../../lib/qcow2/refcount-growth.js'
import { checkedSound, newParts } from '../support/qcow2-disk.js'
import type { Operation } from '../support/staged-backend.js'

const tiny = { size: 65536, clusterSize: 512, refcountBits: 64 } as const

test('a new refcount block stands in the first cluster that it counts, and counts itself', async (t) => {
  const { parts } = await newParts(tiny)
  // 64 clusters a block: the first 64 are counted by the block that the image came with.
  for (let taken = 4; taken < 64;) taken += (await parts.allocator.allocate(64 - taken)).clusters
  const next = await parts.allocator.allocate(1)
  t.is(next.host, (65 * 512) as never)
  t.deepEqual(await parts.allocator.counts(64, 3), [1, 1, 0])
  t.is(parts.metadata.kindOf(64), 'refcount block')
  t.is(parts.table.block(1), (64 * 512) as never)
})

test('what refers to a cluster of a new block comes behind its refcount table entry until that is durable', async (t) => {
  const { parts, backend } = await newParts(tiny)
  for (let taken = 4; taken < 64;) taken += (await parts.allocator.allocate(64 - taken)).clusters
  const first = await parts.allocator.allocate(1)
  const entry = backend.log.findLast(({ kind, offset }) => kind === 'enqueue' && offset === 512)
  t.true(first.after >= (entry?.section ?? Number.POSITIVE_INFINITY))
  const second = await parts.allocator.allocate(1)
  t.true(second.after >= (entry?.section ?? Number.POSITIVE_INFINITY), 'not only the first cluster')
  await backend.flush()
  const third = await parts.allocator.allocate(1)
  await backend.flush()
  t.true(third.after <= backend.durableSection)
})

test('the refcount table moves behind everything when it is full; the old one is freed', async (t) => {
  const { parts, backend } = await newParts(tiny)
  const old = parts.table.host
  const given: number[] = []
  for (let taken = 4; taken < 4096;) {
    const { host, clusters } = await parts.allocator.allocate(64)
    taken += clusters
    given.push(host)
  }
  t.true(parts.table.host > old)
  t.true(parts.table.entries >= 96, 'at least half as large again')
  const where = parts.table.host / 512
  t.is(parts.metadata.kindOf(where), 'refcount table')
  t.deepEqual(await parts.allocator.counts(where, 1), [1])
  await backend.flush()
  await parts.frees.settled()
  t.is(parts.metadata.kindOf(old / 512), undefined)
  if (!given.includes(old)) given.push((await parts.allocator.allocate(1)).host)
  t.true(given.includes(old), 'and given out again')
})

test('the header names the new table only when all of it is durable', async (t) => {
  const { parts, backend } = await newParts(tiny)
  const order: string[] = []
  const note = ({ kind, offset }: Operation): boolean => {
    if (kind === 'write' && offset >= 4096 * 512) order.push('area')
    if (kind === 'flush') order.push('flush')
    if (kind === 'durable') order.push('durable')
    return false
  }
  backend.hold(note)
  for (let taken = 4; taken < 4090;) taken += (await parts.allocator.allocate(64)).clusters
  t.deepEqual(order.slice(-4), ['area', 'area', 'flush', 'durable'])
  const header = backend.log.findLast(({ kind, offset }) => kind === 'enqueue' && offset === 0)
  t.not(header, undefined)
})

const kinds = ['readQueued', 'write', 'writeZeroes', 'flush', 'durable'] as const

for (const kind of kinds) {
  test(`a failed ${kind}, at whatever step of growing, leaves a sound image, and growing can go on`, async (t) => {
    t.timeout(60_000)
    let failures = 0
    // First the failure at the first such operation, then at the second, and so on, until none is left to fail.
    for (let skipped = 0; skipped < 400; skipped += kind === 'writeZeroes' ? 7 : 1) {
      const { parts, backend, memory } = await newParts(tiny, { refcountCacheBytes: 0 })
      let seen = 0
      const stop = backend.fail(
        (operation) => operation.kind === kind && seen++ === skipped,
        new Error('injected'),
        1,
      )
      const taken = new Set<number>()
      let failed = 0
      while (taken.size < 4200) {
        try {
          const { host, clusters } = await parts.allocator.allocate(100)
          for (let step = 0; step < clusters; step++) {
            t.false(taken.has(host / 512 + step))
            taken.add(host / 512 + step)
          }
        } catch (error) {
          t.regex(String(error), /injected/)
          failed++
        }
      }
      t.true(failed <= 1)
      failures += failed
      stop()
      await backend.flush()
      // If it was the free of the old table that failed, that table leaks, and settling says why.
      await parts.frees.settled().catch((error: unknown) => t.regex(String(error), /injected/))
      await backend.flush()
      // Nothing refers to what was allocated here: leaks, and nothing else.
      await checkedSound(t, memory.contents)
      if (seen <= skipped) break
    }
    t.log(`${failures} failures`)
    t.true(failures > 0)
  })
}

test('a refcount table of the largest size does not grow: there is no space', async (t) => {
  const { parts } = await newParts(tiny)
  // 8 MiB: 2^20 entries of 64 clusters.
  const largest = new Uint8Array(8 * 2 ** 20)
  largest.set(parts.table.bytes)
  parts.table.replace(parts.table.host, largest)
  const growth = new RefcountGrowth(parts, parts.header)
  const error = await t.throwsAsync(growth.prepare(2 ** 26, 2 ** 26), { code: 'ERR_NO_SPACE' })
  t.like(error, { structure: 'refcount table' })
})
