import test from 'ava'
import { makeGeometry } from '../../lib/qcow2/geometry.js'
import { decodeSnapshot, encodeSnapshot } from '../../lib/qcow2/snapshot-entry.js'
import { readSnapshotL1, SnapshotList, writeTable } from '../../lib/qcow2/snapshot-list.js'
import { openMetadata } from '../../lib/qcow2/open-metadata.js'
import { checkedClean, diskByQemu, newDisk } from '../support/qcow2-disk.js'

test('it says where the table is, and what it holds, until another takes its place', async (t) => {
  const disk = await diskByQemu(t, {
    create: ['-o', 'cluster_size=512', 'disk.qcow2', '1M'],
    then: [
      ['snapshot', '-c', 'one', 'disk.qcow2'],
      ['snapshot', '-c', 'two', 'disk.qcow2'],
    ],
  })
  const { header, snapshotTable } = await openMetadata(disk.backend, { readOnly: false, repairing: false })
  const list = new SnapshotList(disk.backend, header, snapshotTable)
  t.is(list.count, 2)
  t.true(list.tellsSizes)
  const stored = await list.load()
  t.deepEqual(
    stored.map(({ id, name }) => [id, name]),
    [
      ['1', 'one'],
      ['2', 'two'],
    ],
  )
  t.deepEqual(
    list.inFile.tables.map(({ l1Offset }) => l1Offset),
    stored.map(({ l1Offset }) => l1Offset),
  )
  const table = { host: 0, bytes: 0, allocation: undefined }
  t.deepEqual(list.replace(table, []), { host: header.snapshotsOffset, bytes: 2 * 72 })
  t.is(list.count, 0)
  t.deepEqual(await list.load(), [])
})

test('a table is written in one piece, padded with zeros; an empty one takes no cluster', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512 })
  t.deepEqual(await writeTable(disk.parts, new Uint8Array(0)), { host: 0, bytes: 0, allocation: undefined })
  const table = await writeTable(disk.parts, new Uint8Array(1100).fill(7))
  t.is(table.bytes, 1100)
  t.is(table.allocation?.clusters, 3)
  const seen = new Uint8Array(1536)
  await disk.backend.read(seen, table.host)
  t.true(
    seen.subarray(0, 1100).every((byte) => byte === 7) && seen.subarray(1100).every((byte) => byte === 0),
  )
  if (table.allocation !== undefined) await disk.parts.allocator.cancel(table.allocation)
  await checkedClean(t, disk)
})

test('an L1 table that cannot be where its entry says is refused before memory is taken', async (t) => {
  const disk = await newDisk({ size: 2 ** 20, clusterSize: 512 })
  const geometry = makeGeometry(9, 4)
  const read = (l1Offset: number, l1Entries: number, wanted?: number): Promise<unknown> => {
    const snapshot = { id: '1', name: 'x', date: new Date(0), diskSize: 0, l1Offset, l1Entries }
    return readSnapshotL1(disk.backend, geometry, decodeSnapshot(encodeSnapshot(snapshot), 0, 0), wanted)
  }
  for (const [offset, entries, wanted] of [
    [513, 1],
    [512, 2 ** 22 + 1],
    [512, 2 ** 22],
    [2 ** 40, 1],
    [512, 2, 3],
  ] as const) {
    await t.throwsAsync(read(offset, entries, wanted), {
      code: 'ERR_CORRUPT',
      message: /L1 table of snapshot 'x'/,
    })
  }
  t.deepEqual(await read(0, 0), { l1: new Uint8Array(0), entries: 0, host: 0 })
  await disk.image.close()
})
