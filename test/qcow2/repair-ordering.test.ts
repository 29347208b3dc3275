import test from 'ava'
import { RepairOrdering } from '../../lib/qcow2/repair-ordering.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { emptyImage } from '../support/check-state-of.js'

/** Data is written, then the step is taken. @returns what reached the disk, in order */
async function events(
  step: (ordering: RepairOrdering, firstCluster: Uint8Array) => Promise<void>,
): Promise<string[]> {
  const image = emptyImage()
  const backend = new MemoryBackend({ contents: SparseBytes.from(image), record: true })
  await backend.write(new Uint8Array(512), 8192)
  await step(new RepairOrdering(backend), Uint8Array.from(image.subarray(0, 512)))
  return backend.log.flatMap((event) => {
    if (event.type === 'NSUB') return [`write ${event.offset}+${event.length}`]
    return event.type === 'SSUB' ? ['sync'] : []
  })
}

test('new refcount structures are durable before the header names them, and the header before what follows', async (t) => {
  const found = await events((ordering, header) =>
    ordering.switchRefcounts(header, { offset: 8192, clusters: 1 }),
  )
  t.deepEqual(found, ['write 8192+512', 'sync', 'write 0+512', 'sync'])
})

test('all repairs are durable before the image says that it is whole', async (t) => {
  const found = await events((ordering, header) => ordering.markClean(header, 0n))
  t.deepEqual(found, ['write 8192+512', 'sync', 'write 0+512', 'sync'])
})

test('autoclear bits are gone for good before anything else is changed', async (t) => {
  const found = await events((ordering, header) => ordering.clearAutoclear(header, 0n))
  t.deepEqual(found, ['write 8192+512', 'write 0+512', 'sync'])
})

test('the phases of a repair are separated by a sync', async (t) => {
  for (const phase of ['entriesDropped', 'refcountsSettled', 'repaired'] as const) {
    t.deepEqual(await events((ordering) => ordering[phase]()), ['write 8192+512', 'sync'])
  }
})
