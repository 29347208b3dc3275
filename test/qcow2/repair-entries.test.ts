import test from 'ava'
import { countReferences } from '../../lib/qcow2/check-references.js'
import { dropMisalignedEntries } from '../../lib/qcow2/repair-entries.js'
import { readSnapshotTable } from '../../lib/qcow2/snapshot-table.js'
import { checkStateOf, copied } from '../support/check-state-of.js'

/** An image with clusters of 1 KiB, by hand: L2 table at cluster 4, which entry 1 of the L1 may name as well. */
function image(l2: Record<number, bigint>, options: { twice?: boolean; asData?: boolean } = {}): Buffer {
  const bytes = Buffer.alloc(8 * 1024)
  bytes.write('514649fb00000003', 0, 'hex')
  bytes.writeUInt32BE(10, 20)
  bytes.writeBigUInt64BE(1n << 20n, 24)
  bytes.writeUInt32BE(8, 36)
  bytes.writeBigUInt64BE(3072n, 40)
  bytes.writeBigUInt64BE(1024n, 48)
  bytes.writeUInt32BE(1, 56)
  bytes.writeUInt32BE(4, 96)
  bytes.writeUInt32BE(104, 100)
  bytes.writeBigUInt64BE(2048n, 1024)
  bytes.writeBigUInt64BE(4096n, 3072)
  if (options.twice) bytes.writeBigUInt64BE(4096n, 3080)
  for (const [index, entry] of Object.entries(l2)) bytes.writeBigUInt64BE(entry, 4096 + 8 * Number(index))
  if (options.asData) bytes.writeBigUInt64BE(copied | 4096n, 4096 + 8 * 100)
  return bytes
}

async function drop(bytes: Buffer) {
  const { state, backend, texts } = await checkStateOf(bytes, { repair: 'all' })
  await countReferences(state, await readSnapshotTable(backend, state.header))
  const dropped = await dropMisalignedEntries(state)
  const table = Buffer.alloc(1024)
  await backend.read(table, 4096)
  return { dropped, texts, entry: (index: number) => table.readBigUInt64BE(8 * index), backend }
}

const crooked = copied | 0x1600n

test('a zero entry lets go of a crooked cluster, one of data keeps it', async (t) => {
  const { dropped, entry, texts } = await drop(
    image({ 5: crooked | 1n, 6: crooked, 7: copied | 0x1400n | 1n }),
  )
  t.is(dropped, 1)
  t.is(entry(5), 1n)
  t.is(entry(6), crooked)
  t.is(entry(7), copied | 0x1401n)
  t.is(
    texts.at(-1),
    'Repairing offset=1600: Preallocated cluster is not properly aligned; L2 entry corrupted.',
  )
})

test('a table that two L1 entries share is repaired once', async (t) => {
  const { dropped, entry } = await drop(image({ 5: crooked | 1n }, { twice: true }))
  t.is(entry(5), 1n)
  t.true(dropped >= 1)
})

test('a table that is data as well is left alone', async (t) => {
  const { dropped, backend } = await drop(image({ 5: crooked | 1n }, { asData: true }))
  t.is(dropped, 0)
  t.is(backend.stats().dataWrites, 0)
})
