import test from 'ava'
import { parseHeader } from '../../lib/qcow2/header.js'
import { readSnapshotTable } from '../../lib/qcow2/snapshot-table.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'

/** A header of 512-byte clusters with `count` snapshots at 512, and these entries there. */
async function read(count: number, ...entries: Buffer[]) {
  const header = Buffer.alloc(512)
  header.write('514649fb00000003', 0, 'hex')
  header.writeUInt32BE(9, 20)
  header.writeUInt32BE(count, 60)
  header.writeBigUInt64BE(512n, 64)
  header.writeUInt32BE(4, 96)
  header.writeUInt32BE(104, 100)
  const contents = SparseBytes.from(Buffer.concat([header, ...entries]))
  const backend = new MemoryBackend({ contents, readOnly: true })
  return readSnapshotTable(backend, parseHeader(header, 'a'))
}

function entry(l1Offset: bigint, id: string, name: string, extraBytes = 24): Buffer {
  const length = 40 + extraBytes + id.length + name.length
  const bytes = Buffer.alloc(Math.ceil(length / 8) * 8, 0xee)
  bytes.writeBigUInt64BE(l1Offset, 0)
  bytes.writeUInt32BE(3, 8)
  bytes.writeUInt16BE(id.length, 12)
  bytes.writeUInt16BE(name.length, 14)
  bytes.writeUInt32BE(extraBytes, 36)
  bytes.write(id + name, 40 + extraBytes, 'latin1')
  return bytes
}

test('entries of any length follow one another, each padded to 8 bytes', async (t) => {
  const entries = [entry(1024n, '1', 'a'), entry(2048n, '22', 'longer name', 0), entry(4096n, '', '', 1024)]
  const { snapshots, bytes } = await read(3, ...entries)
  t.deepEqual(
    snapshots.map(({ l1Offset, l1Entries, id, name, extraBytes }) => [
      l1Offset,
      l1Entries,
      id,
      name,
      extraBytes,
    ]),
    [
      [1024, 3, '1', 'a', 24],
      [2048, 3, '22', 'longer name', 0],
      [4096, 3, '', '', 1024],
    ],
  )
  t.is(bytes, Buffer.concat(entries).length)
})

test('the longest names are read whole', async (t) => {
  const name = 'x'.repeat(65535)
  const { snapshots } = await read(3, entry(1n, '1', name), entry(2n, '2', name), entry(3n, '3', name, 1024))
  t.deepEqual(
    snapshots.map(({ id, name }) => [id, name.length]),
    [
      ['1', 65535],
      ['2', 65535],
      ['3', 65535],
    ],
  )
})

test('what stands past the end of the file reads as empty entries, and counts', async (t) => {
  const { snapshots, bytes } = await read(3, entry(1024n, '1', 'a'))
  t.is(snapshots.length, 3)
  t.is(snapshots[2]?.l1Entries, 0)
  t.is(bytes, 72 + 40 + 40)
})

test('a name cannot play with the terminal', async (t) => {
  const { snapshots } = await read(1, entry(1024n, '1', '\u001b[2Ja\0b'))
  t.is(snapshots[0]?.name, '\\u{1b}[2Ja')
})

test('an L1 offset beyond 2^53 is kept as stored', async (t) => {
  const { snapshots } = await read(1, entry(0x8000000000000200n, '1', 'a'))
  t.is(snapshots[0]?.l1OffsetStored, 0x8000000000000200n)
})

test('too much extra data, too many entries and too long a table are refused', async (t) => {
  await t.throwsAsync(read(1, entry(0n, '1', 'a', 1025)), {
    code: 'ERR_CORRUPT',
    message: /Too much extra metadata/,
  })
  await t.throwsAsync(read(65537), { message: /too large: 65537 entries/ })
  const long = entry(0n, '1', 'x'.repeat(65534), 1024)
  await t.throwsAsync(read(1100, ...Array.from({ length: 1100 }, () => long)), {
    message: /larger than 67108864/,
  })
})
