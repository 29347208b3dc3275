import test from 'ava'
import { encodeHeader, type NewHeader } from '../../lib/qcow2/create-header.js'
import { parseHeader } from '../../lib/qcow2/header.js'

const header: NewHeader = {
  version: 3,
  size: 2 ** 40,
  clusterBits: 16,
  refcountOrder: 5,
  lazyRefcounts: true,
  compressionType: 'zstd',
  l1Offset: 0x30000,
  l1Entries: 2048,
  refcountTableOffset: 0x10000,
  refcountTableClusters: 1,
  backingFile: 'base.img',
  backingFormat: 'raw',
}

test('a new header reads as it was meant', (t) => {
  const read = parseHeader(encodeHeader(header), 'a')
  t.like(read, {
    version: 3,
    size: 2 ** 40,
    clusterBits: 16,
    refcountOrder: 5,
    compressionType: 'zstd',
    compatibleFeatures: 1n,
    incompatibleFeatures: 8n,
    l1Offset: 0x30000,
    l1Entries: 2048,
    backingFile: 'base.img',
    backingFormat: 'raw',
    headerLength: 112,
  })
})

test('extensions stand in the order backing format, feature names, end, and then the name', (t) => {
  const bytes = Buffer.from(encodeHeader(header))
  t.is(bytes.toString('hex', 112, 128), 'e2792aca000000037261770000000000')
  t.is(bytes.toString('hex', 128, 136), '6803f85700000180')
  t.is(bytes.toString('latin1', 138, 147), 'dirty bit')
  t.is(bytes.readBigUInt64BE(520), 0n)
  t.is(bytes.toString('latin1', 528, 536), 'base.img')
  t.is(bytes.readBigUInt64BE(8), 528n)
})

test('version 2 ends after 72 bytes, and small clusters name no features', (t) => {
  const old = Buffer.from(
    encodeHeader({ ...header, version: 2, backingFormat: undefined, compressionType: 'zlib' }),
  )
  t.is(old.readBigUInt64BE(72), 0n)
  t.is(old.toString('latin1', 80, 88), 'base.img')
  const small = Buffer.from(encodeHeader({ ...header, clusterBits: 12 }))
  t.is(small.indexOf('dirty bit'), -1)
})

test('a name may fill the cluster to its last byte, not further', (t) => {
  const smallest = { ...header, clusterBits: 9, l1Entries: 0x400000, backingFormat: undefined }
  const fits = 'x'.repeat(512 - 120)
  t.is(parseHeader(encodeHeader({ ...smallest, size: 512, backingFile: fits }), 'a').backingFile, fits)
  t.throws(() => encodeHeader({ ...smallest, backingFile: `${fits}x` }), {
    code: 'ERR_INVALID_OPTION',
    message: /has 393 bytes, at most 392 fit/,
  })
  t.throws(() => encodeHeader({ ...header, backingFormat: 'x'.repeat(16) }), { message: /at most 15/ })
})
