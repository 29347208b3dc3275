import test from 'ava'
import { makeGeometry } from '../../lib/qcow2/geometry.js'
import { HeaderCluster } from '../../lib/qcow2/header-cluster.js'

test('a change of the header touches its fields, in the first sector, and nothing else', (t) => {
  const geometry = makeGeometry(16, 4)
  const before = Uint8Array.from({ length: 65536 }, (_, index) => index * 7)
  const header = new HeaderCluster(geometry, before.slice())
  const { host, bytes } = header.change({ size: 0x123456789a00 })
  t.is(host, 0)
  t.is(bytes.length, 4096, 'what is queued is a whole slice')
  const expected = before.slice(0, 4096)
  // Byte 24: virtual size, 64 bits.
  expected.set(Buffer.from('0000123456789a00', 'hex'), 24)
  t.deepEqual(Buffer.from(bytes), Buffer.from(expected))
})

test('changes add up', (t) => {
  const header = new HeaderCluster(makeGeometry(9, 4), new Uint8Array(512))
  header.change({ size: 512 })
  header.change({ l1: { offset: 0x600, entries: 3 } })
  const { bytes } = header.change({ refcountTable: { offset: 0x2000, clusters: 2 }, autoclearFeatures: 0n })
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  t.is(bytes.length, 512)
  t.is(view.getBigUint64(24), 512n)
  t.is(view.getUint32(36), 3)
  t.is(view.getBigUint64(40), 0x600n)
  t.is(view.getBigUint64(48), 0x2000n)
  t.is(view.getUint32(56), 2)
})
