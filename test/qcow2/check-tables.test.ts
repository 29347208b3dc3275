import test from 'ava'
import { readEntries, readTables, TableChanges } from '../../lib/qcow2/check-tables.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'

/** 64 KiB in which every 8 bytes are their own number. */
function numbered(): MemoryBackend {
  const bytes = Buffer.alloc(65536)
  for (let at = 0; at < bytes.length; at += 8) bytes.writeBigUInt64BE(BigInt(at / 8), at)
  return new MemoryBackend({ contents: SparseBytes.from(bytes) })
}

/** How often the file is read from now on. */
function countReads(backend: MemoryBackend): () => number {
  let reads = 0
  const readQueued = backend.readQueued.bind(backend)
  backend.readQueued = (bytes, offset) => {
    reads++
    return readQueued(bytes, offset)
  }
  return () => reads
}

test('tables come in the order asked for, with their index, and neighbours cost one read', async (t) => {
  const backend = numbered()
  const reads = countReads(backend)
  const wanted: [number, number][] = [
    [7, 512],
    [8, 1024],
    [9, 1536],
    [11, 0],
    [10, 4096],
  ]
  const found: unknown[] = []
  for await (const batch of readTables(backend, wanted, 512)) {
    for (const { index, offset, view } of batch) found.push([index, offset, Number(view.getBigUint64(8))])
  }
  t.deepEqual(
    found,
    wanted.map(([index, offset]) => [index, offset, offset / 8 + 1]),
  )
  t.is(reads(), 3)
})

test('more tables than fit a batch come in several, of bounded size', async (t) => {
  const backend = numbered()
  const many = Array.from({ length: 300 }, (_, index) => [index, (index % 128) * 512] as const)
  const sizes: number[] = []
  for await (const batch of readTables(backend, many, 512)) sizes.push(batch.length)
  t.deepEqual(sizes, [128, 128, 44])
  const large: number[] = []
  for await (const batch of readTables(backend, many.slice(0, 3), 2 ** 21)) large.push(batch.length)
  t.deepEqual(large, [1, 1, 1])
})

test('what lies past the end has no bytes, however far; a last table that is short is filled with zeros', async (t) => {
  const backend = numbered()
  for await (const batch of readTables(
    backend,
    [
      [0, 2 ** 60],
      [1, 65536 - 256],
    ],
    512,
  )) {
    t.is(batch[0]?.view.byteLength, 0)
    t.is(batch[1]?.view.getBigUint64(248), 8191n)
    t.is(batch[1]?.view.getBigUint64(256), 0n)
  }
})

test('a long table is read piece by piece', async (t) => {
  const pieces: unknown[] = []
  for await (const { first, count, view } of readEntries(numbered(), 8, 75_000)) {
    pieces.push([first, count, Number(view.getBigUint64(0))])
  }
  t.deepEqual(pieces, [
    [0, 32768, 1],
    [32768, 32768, 0],
    [65536, 9464, 0],
  ])
})

test('only units that changed are written back', async (t) => {
  const backend = numbered()
  for await (const batch of readTables(backend, [[0, 8192]], 8192)) {
    const [table] = batch
    if (table === undefined) return t.fail()
    const changes = new TableChanges(table, 4096)
    t.true(changes.empty)
    table.view.setBigUint64(0, 77n)
    table.view.setBigUint64(4096, 88n)
    changes.mark(4103)
    await changes.write(backend)
  }
  t.is(backend.stats().dataWrites, 1)
  const after = Buffer.alloc(65536)
  await backend.read(after, 0)
  t.is(after.readBigUInt64BE(8192), 1024n)
  t.is(after.readBigUInt64BE(8192 + 4096), 88n)
})
