import test from 'ava'
import {
  decodeSnapshot,
  describeSnapshot,
  diskSizeOf,
  encodeSnapshot,
  findSnapshot,
  hasRoomFor,
  nextSnapshotId,
} from '../../lib/qcow2/snapshot-entry.js'

const entry = {
  id: '3',
  name: 'Tür',
  date: new Date(1_700_000_000_250),
  diskSize: 2 ** 33 + 512,
  l1Offset: 0x50000,
  l1Entries: 17,
}

test('an entry is written as the format says, with 24 bytes of extra data and padding', (t) => {
  const expected = Buffer.concat([
    Buffer.from('0000000000050000' + '00000011' + '0001' + '0004', 'hex'),
    // 1,700,000,000 seconds, 250,000,000 nanoseconds, clock, VM state, 24
    Buffer.from('6553f100' + '0ee6b280' + '0000000000000000' + '00000000' + '00000018', 'hex'),
    Buffer.from('0000000000000000' + '0000000200000200' + '0000000000000000', 'hex'),
    Buffer.from('3Tür\0\0\0'),
  ])
  t.is(expected.length, 72)
  t.deepEqual(Buffer.from(encodeSnapshot(entry)), expected)
})

test('what was written is read, wherever it stands', (t) => {
  const bytes = encodeSnapshot(entry)
  const window = Buffer.concat([Buffer.alloc(8, 0xff), bytes, Buffer.alloc(3, 0xff)])
  const stored = decodeSnapshot(window, 8, 4096)
  t.deepEqual(describeSnapshot(stored), {
    id: '3',
    name: 'Tür',
    vmStateSize: 0,
    dateSeconds: 1_700_000_000,
    dateNanoseconds: 250_000_000,
    vmClockNanoseconds: 0n,
    icount: 0n,
    diskSize: 2n ** 33n + 512n,
  })
  t.deepEqual(
    [stored.entryOffset, stored.l1Offset, stored.l1Entries, stored.extraBytes],
    [4096, 0x50000, 17, 24],
  )
  t.deepEqual(Buffer.from(stored.bytes), Buffer.from(bytes))
})

/** An entry by hand: 16 bytes of text, "1" and "x" among them. */
function byHand(vmState32: number, extra: Buffer): Buffer {
  const fixed = Buffer.alloc(40)
  fixed.writeUInt16BE(1, 12)
  fixed.writeUInt16BE(1, 14)
  fixed.writeUInt32BE(vmState32, 32)
  fixed.writeUInt32BE(extra.length, 36)
  return Buffer.concat([fixed, extra, Buffer.from('1x'), Buffer.alloc(8)])
}

test('the size of the VM state is that of 64 bits, where there is one', (t) => {
  t.is(decodeSnapshot(byHand(77, Buffer.alloc(0)), 0, 0).vmStateSize, 77)
  const extra = Buffer.alloc(8)
  extra.writeBigUInt64BE(2n ** 40n)
  const large = decodeSnapshot(byHand(0, extra), 0, 0)
  t.is(large.vmStateSize, 2 ** 40)
  t.is(large.diskSize, undefined)
  t.is(diskSizeOf(large, 12_345), 12_345)
})

test('a count of instructions that is all ones is none; more extra data than is known is kept', (t) => {
  const extra = Buffer.concat([Buffer.alloc(16), Buffer.alloc(8, 0xff), Buffer.from('others')])
  const stored = decodeSnapshot(byHand(0, extra), 0, 0)
  t.is(stored.icount, undefined)
  t.is(stored.name, 'x')
  t.true(Buffer.from(stored.bytes).includes('others1x'))
  t.is(stored.bytes.length, 72)
})

test('sizes that are not whole sectors are cut down to them', (t) => {
  t.is(diskSizeOf({ ...decodeSnapshot(encodeSnapshot(entry), 0, 0), diskSize: 1023n }, 0), 512)
})

test('ids count on from the largest number there is', (t) => {
  const next = (...ids: string[]): string => nextSnapshotId(ids.map((id) => ({ id })))
  t.is(next(), '1')
  t.is(next('1', '7', '2'), '8')
  t.is(next('frob', '', '12abc'), '13')
  t.is(next('18446744073709551615'), '18446744073709551616')
})

test('a word is an id or a name, in the order asked for; an object says exactly which', (t) => {
  const [one, two, three] = [
    { id: '1', name: '2' },
    { id: '2', name: 'same' },
    { id: '3', name: 'same' },
  ]
  const all = [one, two, three]
  t.is(findSnapshot(all, '2', 'id'), two)
  t.is(findSnapshot(all, '2', 'name'), one)
  t.is(findSnapshot(all, '3', 'name'), three)
  t.is(findSnapshot(all, 'same', 'id'), two)
  t.is(findSnapshot(all, { name: '1' }, 'id'), undefined)
  t.is(findSnapshot(all, { name: 'same', id: '3' }, 'id'), three)
  t.is(findSnapshot(all, { name: '2', id: '3' }, 'id'), undefined)
})

test('a table has room for 65536 entries in 64 MiB', (t) => {
  t.true(hasRoomFor(65_536, 64 * 2 ** 20))
  t.false(hasRoomFor(65_537, 1000))
  t.false(hasRoomFor(2, 64 * 2 ** 20 + 8))
})
