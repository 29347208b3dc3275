import test from 'ava'
import { bitmapBytes, metadataBytes } from '../../lib/qcow2/measure.js'

const usual = { clusterSize: 65536, refcountBits: 16, extendedL2: false }

test('metadata is header, L1, L2 tables, refcount table and refcount blocks', (t) => {
  t.is(metadataBytes(usual, 0), 3 * 65536)
  t.is(metadataBytes(usual, 1), 5 * 65536)
  // two L2 tables, then one more
  t.is(metadataBytes(usual, 2 ** 30), 6 * 65536)
  t.is(metadataBytes(usual, 2 ** 30 + 1), 7 * 65536)
  t.is(metadataBytes({ ...usual, extendedL2: true }, 2 ** 30), 8 * 65536)
})

test('refcount blocks count themselves and their table', (t) => {
  // 256 counts a block: 254 data clusters need 4 L2 tables, an L1 and the header, and so two blocks.
  const shape = { clusterSize: 512, refcountBits: 16, extendedL2: false }
  const clusters = (data: number): number => metadataBytes(shape, data * 512) / 512
  t.is(clusters(192), 1 + 1 + 3 + 1 + 1)
  t.is(clusters(249), 1 + 1 + 4 + 2 + 1)
  t.is(clusters(248), 1 + 1 + 4 + 1 + 1 + (248 + 8 > 256 ? 1 : 0))
})

test('a disk whose L1 table would be too large is refused', (t) => {
  const most = (32 * 2 ** 20) / 8
  const shape = { clusterSize: 512, refcountBits: 16, extendedL2: false }
  t.notThrows(() => metadataBytes(shape, most * 64 * 512))
  t.throws(() => metadataBytes(shape, most * 64 * 512 + 1), { code: 'ERR_OUT_OF_RANGE' })
})

test('bitmaps take their bits, a table each, and a directory', (t) => {
  t.is(bitmapBytes([], 2 ** 30, 65536), 0)
  const one = { name: 'x', granularity: 65536 }
  t.is(bitmapBytes([one], 2 ** 30, 65536), 3 * 65536)
  t.is(bitmapBytes([one, { name: 'yy', granularity: 4096 }], 2 ** 30, 512), 71 * 512)
})
