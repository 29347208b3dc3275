import test from 'ava'
import {
  bitsFor,
  encodeTable,
  findBitmapClusters,
  noBitmaps,
  readBitmaps,
  tableEntriesFor,
} from '../../lib/qcow2/bitmap-table.js'
import { makeGeometry } from '../../lib/qcow2/geometry.js'
import { parseHeader } from '../../lib/qcow2/header.js'
import { MetadataMap, metadataEntry } from '../../lib/qcow2/metadata-map.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { encodeDirectory } from '../../lib/qcow2/bitmap-directory.js'
import { sampleImage } from '../support/image-bytes.js'
import { makeFolder } from '../support/temp-folder.js'

test('a bitmap has a bit for each unit, and its table an entry for each cluster of bits', (t) => {
  t.is(bitsFor(2 ** 20 + 1, 16), 17)
  t.is(tableEntriesFor(512, 512 * 4096, 9), 1)
  t.is(tableEntriesFor(512, 512 * 4096 + 1, 9), 2)
  t.is(tableEntriesFor(65536, 64 * 2 ** 40, 16), 2048)
})

test('a table is encoded as the format has it', (t) => {
  const bytes = encodeTable(Float64Array.of(0, 1, 2 ** 33 + 65536))
  t.is(Buffer.from(bytes).toString('hex'), '0000000000000000' + '0000000000000001' + '0000000200010000')
})

test('directory, tables and bits are metadata that nothing else may be written to', (t) => {
  const geometry = makeGeometry(16, 4)
  const entry = { nameBytes: Uint8Array.of(97), extra: new Uint8Array(0), flags: 2, granularityBits: 16 }
  const pages = Float64Array.of(0, 1, 7 * 65536)
  const stored = { ...entry, tableOffset: 6 * 65536, tableEntries: 3, pages }
  const directory = { host: 5 * 65536, bytes: encodeDirectory([stored]) }
  const clusters = findBitmapClusters(geometry, { bitmaps: [stored], directory })
  t.deepEqual(
    [...clusters],
    [metadataEntry('bitmap directory', 5), metadataEntry('bitmap table', 6), metadataEntry('bitmap data', 7)],
  )
  const map = new MetadataMap(geometry, [])
  map.addFound(clusters)
  for (const cluster of [5, 6, 7])
    t.throws(() => map.refuse('guest data', cluster * 65536, 1), { code: 'ERR_CORRUPT', message: /bitmap/ })
  map.remove(7 * 65536, 65536)
  t.notThrows(() => map.refuse('guest data', 7 * 65536, 1))
  t.is(findBitmapClusters(geometry, noBitmaps).length, 0)
})

test('tables that would take more memory than is allowed are refused before any is read', async (t) => {
  const image = await sampleImage(await makeFolder(t, { fast: true }), { clusterSize: 65536, bitmap: true })
  const extension = image.indexOf(Buffer.from('2385287500000018', 'hex'))
  const directory = Number(image.readBigUInt64BE(extension + 24))
  // 600 bitmaps in use whose tables have 8192 entries each: 37 MiB, in a file that is long enough.
  const count = 600
  const entries = Array.from({ length: count }, (_, index) => ({
    nameBytes: Buffer.from(`n${index}`),
    extra: new Uint8Array(0),
    flags: 3,
    granularityBits: 9,
    tableOffset: 2 ** 30 + index * 65536,
    tableEntries: 8192,
  }))
  const bytes = encodeDirectory(entries)
  const contents = SparseBytes.from(image)
  image.writeUInt32BE(count, extension + 8)
  image.writeBigUInt64BE(BigInt(bytes.length), extension + 16)
  contents.write(image.subarray(0, 65536), 0)
  contents.write(bytes, directory)
  contents.write(Uint8Array.of(0), 2 ** 31)
  const header = parseHeader(image.subarray(0, 65536), 'x')
  await t.throwsAsync(readBitmaps(new MemoryBackend({ contents }), header), {
    code: 'ERR_NOT_SUPPORTED',
    message: /bitmaps' tables have 39321600 bytes/,
  })
})
