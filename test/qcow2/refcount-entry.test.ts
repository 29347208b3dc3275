import test from 'ava'
import { makeGeometry } from '../../lib/qcow2/geometry.js'
import { loadRefcount, storeRefcount } from '../../lib/qcow2/refcount-entry.js'

/** Counts 0, 1, 2, ... of a width, and the bytes they are on disk, packed by hand. */
const packed: readonly (readonly [order: number, counts: readonly number[], hex: string])[] = [
  // Bits from the least significant one upwards: 1 0 1 1 0 0 0 0 | 0 1 ...
  [0, [1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1], '0d82'],
  // Two bits each: 1, 2, 3, 0 is 00 11 10 01 from the top.
  [1, [1, 2, 3, 0, 3, 0, 0, 1], '3943'],
  // Half bytes, the low one first.
  [2, [1, 15, 0, 8], 'f180'],
  [3, [1, 255, 0, 128], '01ff0080'],
  [4, [1, 0xfedc, 0, 0x8000], '0001fedc00008000'],
  [5, [1, 0xfedcba98], '00000001fedcba98'],
  [6, [1, 2 ** 53 - 1, 2 ** 32], '0000000000000001001fffffffffffff0000000100000000'],
]

for (const [order, counts, hex] of packed) {
  const geometry = makeGeometry(16, order)

  test(`refcounts of ${2 ** order} bits are read as packed`, (t) => {
    const bytes = Uint8Array.from(Buffer.from(hex, 'hex'))
    const view = new DataView(bytes.buffer)
    t.deepEqual(
      counts.map((_, index) => loadRefcount(view, index, geometry)),
      counts,
    )
  })

  test(`refcounts of ${2 ** order} bits are stored as packed, in any order`, (t) => {
    const bytes = new Uint8Array(hex.length / 2).fill(0xff)
    const view = new DataView(bytes.buffer)
    for (let index = counts.length - 1; index >= 0; index--) {
      storeRefcount(view, index, geometry, counts[index] ?? 0)
    }
    t.is(Buffer.from(bytes).toString('hex'), hex)
  })

  test(`storing one refcount of ${2 ** order} bits leaves its neighbours alone`, (t) => {
    const bytes = new Uint8Array(64)
    const view = new DataView(bytes.buffer)
    const entries = (bytes.length * 8) / geometry.refcountBits
    for (let index = 0; index < entries; index++) {
      for (const [before, value] of [
        [0, geometry.refcountMax],
        [geometry.refcountMax, 0],
      ] as const) {
        for (let other = 0; other < entries; other++) storeRefcount(view, other, geometry, before)
        storeRefcount(view, index, geometry, value)
        const wrong = [...Array(entries).keys()].filter(
          (other) => loadRefcount(view, other, geometry) !== (other === index ? value : before),
        )
        if (wrong.length > 0) t.fail(`storing entry ${index} changed ${wrong.join(', ')}`)
      }
    }
    t.pass()
  })
}

test('a refcount of 64 bits beyond 2^53 is read as the largest exact number, never as a small one', (t) => {
  const geometry = makeGeometry(16, 6)
  for (const hex of ['0020000000000000', '8000000000000000', 'ffffffffffffffff']) {
    const bytes = Uint8Array.from(Buffer.from(hex, 'hex'))
    t.is(loadRefcount(new DataView(bytes.buffer), 0, geometry), 2 ** 53 - 1, hex)
  }
})
