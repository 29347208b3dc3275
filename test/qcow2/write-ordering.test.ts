import test from 'ava'
import { noSection } from '../../lib/base/units.js'
import { type TableBytes, WriteOrdering } from '../../lib/qcow2/write-ordering.js'
import { fill, newBackend } from '../support/qcow2-disk.js'
import type { StagedBackend } from '../support/staged-backend.js'

const table = (host: number, value = 1): { host: number; bytes: Uint8Array } => ({
  host,
  bytes: fill(512, value),
})

/** A file of 64 KiB of zeros, all durable, and the ordering over it. */
async function setUp(syncPolicy: 'never' | 'flush' | 'write' = 'flush'): Promise<{
  backend: StagedBackend
  ordering: WriteOrdering
}> {
  const backend = newBackend({ syncPolicy })
  await backend.truncate(65536)
  await backend.flush()
  return { backend, ordering: new WriteOrdering(backend) }
}

const sectionsOf = (backend: StagedBackend, host: number): number[] =>
  backend.log.flatMap(({ kind, offset, section }) =>
    kind === 'enqueue' && offset === host && section !== undefined ? [section] : [],
  )

test('counts that go up wait for nothing', async (t) => {
  const { backend, ordering } = await setUp()
  const counted = ordering.addReferences(table(0x400))
  t.deepEqual(sectionsOf(backend, 0x400), [counted])
  t.is(backend.stats().barriersAsked, 0)
})

test('a mapping of data comes in a section behind the counts of its clusters', async (t) => {
  const { ordering } = await setUp()
  const counted = ordering.addReferences(table(0x400))
  const linked = ordering.linkData(table(0x800), counted)
  t.true(linked > counted)
})

test('a mapping of data comes behind a sync that starts after the data was written, also without new counts', async (t) => {
  const { backend, ordering } = await setUp()
  await backend.write(fill(512, 5), 0x4000)
  const before = backend.stats().syncsIssued
  const linked = ordering.linkData(table(0x800), noSection)
  await backend.durable(linked)
  t.is(backend.stats().syncsIssued - before, 2, 'one for the data, one for the mapping')
})

test('many mappings share the barrier: two syncs for any number of allocations and a flush', async (t) => {
  const { backend, ordering } = await setUp()
  const before = backend.stats().syncsIssued
  for (let index = 0; index < 20; index++) {
    const counted = ordering.addReferences(table(0x400, index))
    await backend.write(fill(512, 5), 0x4000 + index * 512)
    ordering.linkData(table(0x800, index), counted)
  }
  await backend.flush()
  t.is(backend.stats().syncsIssued - before, 2)
})

test('a new L2 table is linked behind its count and its contents', async (t) => {
  const { ordering } = await setUp()
  const counted = ordering.addReferences(table(0x400))
  const linked = ordering.linkL2Table(table(0xc00), counted)
  t.true(linked > counted)
})

test('a removed mapping waits for nothing', async (t) => {
  const { backend, ordering } = await setUp()
  ordering.unlink(table(0x800))
  t.is(backend.stats().barriersAsked, 0)
  const before = backend.stats().syncsIssued
  await backend.flush()
  t.is(backend.stats().syncsIssued - before, 1)
})

test('counts go down only when the removal is durable: anything else is a mistake of ours', async (t) => {
  const { backend, ordering } = await setUp()
  const removal = ordering.unlink(table(0x800))
  t.throws(() => ordering.dropReferences(table(0x400), removal), { name: 'AssertionError' })
  await backend.flush()
  t.notThrows(() => ordering.dropReferences(table(0x400), removal))
})

test('a refcount table entry comes behind the block that it names', async (t) => {
  const { backend, ordering } = await setUp()
  const published = ordering.publishRefcountBlock(table(0x1000), table(0x200), noSection)
  const [block = 0] = sectionsOf(backend, 0x1000)
  t.deepEqual(sectionsOf(backend, 0x200), [published])
  t.true(published > block)
})

test('a refcount table entry comes behind the way to the count of its block, where another block has that', async (t) => {
  const { ordering } = await setUp()
  const other = ordering.publishRefcountBlock(table(0x1000), table(0x200), noSection)
  t.true(ordering.publishRefcountBlock(table(0x1400), table(0x800), other) > other)
})

test('what refers to a cluster of a new refcount block comes behind the entry of the block', async (t) => {
  const { ordering } = await setUp()
  const published = ordering.publishRefcountBlock(table(0x1000), table(0x200), noSection)
  t.true(ordering.linkData(table(0x800), published) > published)
})

test('the header switches when all that was queued before is durable, and what follows waits for the switch', async (t) => {
  const { backend, ordering } = await setUp()
  const counted = ordering.addReferences(table(0x400))
  let durableBefore = -1
  let switched = noSection
  const change = (): TableBytes => {
    durableBefore = backend.durableSection
    return table(0)
  }
  await ordering.switchHeader(change, (section) => {
    t.true(backend.durableSection < section, 'what is told of is under way, and can still fail')
    switched = section
  })
  t.true(durableBefore >= counted)
  t.true(switched > counted)
  t.true(backend.durableSection >= switched)
})

test('a header switch that cannot get there changes nothing', async (t) => {
  const { backend, ordering } = await setUp()
  const failure = new Error('no sync')
  backend.fail(({ kind }) => kind === 'flush', failure, 1)
  await t.throwsAsync(
    ordering.switchHeader(() => t.fail('the change must not be made')),
    { is: failure },
  )
})

test('where every write is synced, data is durable before its mapping is queued, and the mapping before the request ends', async (t) => {
  const { backend, ordering } = await setUp('write')
  await backend.write(fill(512, 5), 0x4000)
  const before = backend.stats().syncsIssued
  await ordering.dataWritten()
  t.is(backend.stats().syncsIssued - before, 1)
  const linked = ordering.linkData(table(0x800), noSection)
  await ordering.completed(linked)
  t.true(backend.durableSection >= linked)
  t.is(backend.stats().syncsIssued - before, 2)
})

test('where a flush syncs, requests end without one', async (t) => {
  const { backend, ordering } = await setUp()
  await backend.write(fill(512, 5), 0x4000)
  const before = backend.stats().syncsIssued
  await ordering.dataWritten()
  await ordering.completed(ordering.linkData(table(0x800), noSection))
  t.is(backend.stats().syncsIssued, before)
})

test('entries that a snapshot is to share, or does not share after all, wait for nothing', async (t) => {
  const { backend, ordering } = await setUp()
  const shared = ordering.share(table(0x800))
  t.deepEqual(sectionsOf(backend, 0x800), [shared])
  t.is(ordering.unshare(table(0x800, 2)), shared, 'it is folded into the version that waits')
  t.is(backend.stats().barriersAsked, 0)
})

test('entries become COPIED in a section behind the counts that have gone down', async (t) => {
  const { backend, ordering } = await setUp()
  const dropped = ordering.dropReferences(table(0x400), noSection)
  const owned = ordering.ownAlone(table(0x800))
  t.true(owned > dropped)
  await backend.durable(owned)
  t.true(ordering.ownAlone(table(0x800)) > owned)
})
