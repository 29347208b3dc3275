import test from 'ava'
import { checkEntriesWithinFile, headerRegions, refuseOverlaps } from '../../lib/qcow2/open-checks.js'
import { parseHeader } from '../../lib/qcow2/header.js'

const header = (() => {
  const bytes = Buffer.alloc(65536)
  bytes.write('514649fb00000003', 0, 'hex')
  bytes.writeUInt32BE(16, 20)
  bytes.writeUInt32BE(1, 36)
  bytes.writeBigUInt64BE(0x30000n, 40)
  bytes.writeBigUInt64BE(0x10000n, 48)
  bytes.writeUInt32BE(2, 56)
  bytes.writeBigUInt64BE(0x50000n, 64)
  bytes.writeUInt32BE(4, 96)
  bytes.writeUInt32BE(104, 100)
  bytes.writeBigUInt64BE(1n, 88)
  // the bitmaps extension: one bitmap, a directory of 32 bytes at 0x60000
  bytes.write('23852875000000180000000100000000000000000000002000000000000600000000', 104, 'hex')
  return parseHeader(bytes, 'a')
})()

test('what the header points to counts in whole clusters', (t) => {
  t.deepEqual(headerRegions(header, 80), [
    { structure: 'header', offset: 0, bytes: 65536 },
    { structure: 'refcount table', offset: 0x10000, bytes: 131072 },
    { structure: 'L1 table', offset: 0x30000, bytes: 65536 },
    { structure: 'snapshot table', offset: 0x50000, bytes: 65536 },
    { structure: 'bitmap directory', offset: 0x60000, bytes: 65536 },
  ])
  t.is(headerRegions(header, 0).length, 4)
})

test('regions side by side are well, regions with a byte in common are not', (t) => {
  const region = (structure: string, offset: number, bytes: number) => ({ structure, offset, bytes })
  t.notThrows(() => refuseOverlaps([region('a', 512, 512), region('b', 0, 512), region('c', 1024, 1)], 'x'))
  t.throws(() => refuseOverlaps([region('a', 512, 512), region('b', 0, 513)], 'x'), {
    code: 'ERR_CORRUPT',
    message: 'The a at offset 512 overlaps the b at 0',
  })
  t.throws(() => refuseOverlaps([region('a', 0, 512), region('b', 0, 512)], 'x'), { code: 'ERR_CORRUPT' })
})

test('an entry may point anywhere into the file, and nowhere behind', (t) => {
  const table = (...entries: bigint[]): Uint8Array => {
    const bytes = Buffer.alloc(8 * entries.length)
    entries.forEach((entry, index) => bytes.writeBigUInt64BE(entry, 8 * index))
    return bytes
  }
  const check = (structure: 'L1 table' | 'refcount table', ...entries: bigint[]) =>
    checkEntriesWithinFile(structure, table(...entries), entries.length, 4096, 0x30001, 'x')
  t.notThrows(() => check('L1 table', 0n, 0x8000000000030000n, 0x10000n))
  t.throws(() => check('L1 table', 0n, 0x8000000000040000n), {
    message:
      /ends after 196609 bytes, the L2 table of L1 table entry 1 \(at offset 4104\) is at offset 262144/,
  })
  t.notThrows(() => check('refcount table', 0x30000n))
  t.throws(() => check('refcount table', 0x8000000000030000n), { message: /refcount block/ })
})
