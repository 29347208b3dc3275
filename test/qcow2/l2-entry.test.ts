import test from 'ava'
import {
  decodeL1Entry,
  decodeL2Entry,
  hostOf,
  isWritableInPlace,
  kindOfL2Entry,
  type L2Entry,
  storeCopied,
  storeUnallocated,
  storeZero,
} from '../../lib/qcow2/l2-entry.js'
import { hostOffset } from '../../lib/base/units.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'

/** The two halves of an entry given as the 16 hexadecimal digits that a dump of the file shows. */
function halves(hex: string): [high: number, low: number] {
  const digits = hex.replaceAll(' ', '')
  return [Number.parseInt(digits.slice(0, 8), 16), Number.parseInt(digits.slice(8), 16)]
}

function decode(hex: string, version: 2 | 3 = 3, clusterBits = 16): L2Entry {
  const [high, low] = halves(hex)
  return decodeL2Entry(high, low, { version, clusterBits }, 0x30008)
}

/** The digits of the 8 bytes that a store function writes. */
function stored(store: (view: DataView) => void): string {
  const bytes = new Uint8Array(24).fill(0xee)
  store(new DataView(bytes.buffer))
  const around = [...bytes.subarray(0, 8), ...bytes.subarray(16)]
  if (around.some((byte) => byte !== 0xee)) throw new Error('a neighbouring entry was changed')
  return Buffer.from(bytes.subarray(8, 16)).toString('hex')
}

const standard: readonly (readonly [what: string, hex: string, entry: L2Entry])[] = [
  ['an empty entry is unallocated', '00000000 00000000', { type: 'unallocated' }],
  [
    'COPIED and an offset are a cluster of our own',
    '80000000 00050000',
    { type: 'normal', host: hostOffset(0x50000), copied: true },
  ],
  [
    'an offset without COPIED is a shared cluster',
    '00000000 00050000',
    { type: 'normal', host: hostOffset(0x50000), copied: false },
  ],
  [
    'an offset beyond 2^32 is exact',
    '80000012 34560000',
    { type: 'normal', host: hostOffset(0x1234560000), copied: true },
  ],
  [
    'the highest offset that a number holds exactly is decoded',
    '801fffff ffff0000',
    { type: 'normal', host: hostOffset(2 ** 53 - 65536), copied: true },
  ],
  [
    'the zero flag alone reads as zeros',
    '00000000 00000001',
    { type: 'zero', host: undefined, copied: false },
  ],
  [
    'the zero flag with an offset keeps the cluster',
    '80000000 00050001',
    { type: 'zero', host: hostOffset(0x50000), copied: true },
  ],
  [
    'the zero flag with the offset of a shared cluster keeps it',
    '00000000 00050001',
    { type: 'zero', host: hostOffset(0x50000), copied: false },
  ],
]

for (const [what, hex, entry] of standard) {
  test(`${what}: ${hex}`, (t) => t.deepEqual(decode(hex), entry))
}

// Worked by hand: x = 62 - (cluster bits - 8) offset bits, then the number of further sectors.
const compressed: readonly (readonly [clusterBits: number, hex: string, host: number, bytes: number])[] = [
  // x = 54: the offset 0x50123, and 3 further sectors: 3 << 54 is 0x00c0...
  [16, '40c00000 00050123', 0x50123, 4 * 512 - 0x123],
  // Aligned to a sector, no further sector.
  [16, '40000000 00050000', 0x50000, 512],
  // Bit 0 is payload offset, not the zero flag; bits 1 to 8 are not reserved.
  [16, '40000000 000501ff', 0x501ff, 1],
  // The largest number of further sectors: 8 bits.
  [16, '7fc00000 00050000', 0x50000, 256 * 512],
  // x = 61: one bit for further sectors.
  [9, '60000000 00000601', 0x601, 2 * 512 - 1],
  [9, '40000000 00000601', 0x601, 511],
  // x = 58 with 4 KiB clusters: the count in bits 58 to 61.
  [12, '5c000000 00012345', 0x12345, 8 * 512 - 0x145],
  // x = 49 with 2 MiB clusters: the count in bits 49 to 61, the offset may reach 2^49 - 1.
  [21, '4001ffff ffffffff', 2 ** 49 - 1, 1],
  [21, '40020000 00200000', 0x200000, 2 * 512],
  [21, '7ffe0000 00200000', 0x200000, 8192 * 512],
]

for (const [clusterBits, hex, host, bytes] of compressed) {
  test(`a compressed cluster at ${host} of at most ${bytes} bytes, clusters of 2^${clusterBits}: ${hex}`, (t) => {
    t.deepEqual(decode(hex, 3, clusterBits), { type: 'compressed', host: hostOffset(host), bytes })
    t.deepEqual(decode(hex, 2, clusterBits), { type: 'compressed', host: hostOffset(host), bytes })
  })
}

const damaged: readonly (readonly [what: string, hex: string, version: 2 | 3, message: RegExp])[] = [
  ['reserved bit 56', '81000000 00050000', 3, /reserved bits/],
  ['reserved bit 61', 'a0000000 00050000', 3, /reserved bits/],
  ['reserved bit 1', '80000000 00050002', 3, /reserved bits/],
  ['reserved bit 8', '80000000 00050100', 3, /reserved bits/],
  ['reserved bits without an offset', '00000000 00000100', 3, /reserved bits/],
  ['an offset within a cluster', '80000000 00050200', 3, /0x50200 is not cluster aligned/],
  ['an offset within a cluster under the zero flag', '80000000 00050201', 3, /not cluster aligned/],
  ['an offset beyond 2^53', '80200000 00000000', 3, /beyond 2\^53/],
  ['the highest offset of the format', '80ffffff ffff0000', 3, /beyond 2\^53/],
  ['COPIED without an offset', '80000000 00000000', 3, /host offset 0/],
  ['the zero flag in version 2', '00000000 00000001', 2, /zero flag in a version 2 image/],
  ['the zero flag on a cluster in version 2', '80000000 00050001', 2, /zero flag in a version 2 image/],
]

for (const [what, hex, version, message] of damaged) {
  test(`an L2 entry with ${what} is corrupt: ${hex}`, (t) => {
    const error = t.throws(() => decode(hex, version), { code: 'ERR_CORRUPT', message })
    t.like(error, { structure: 'L2 entry', offset: 0x30008 })
  })
}

test('a compressed cluster beyond 2^53 is corrupt', (t) => {
  t.throws(() => decode('40200000 00000000', 3, 9), { code: 'ERR_CORRUPT', message: /beyond 2\^53/ })
  t.throws(() => decode('5fffffff ffffffff', 3, 9), { code: 'ERR_CORRUPT', message: /beyond 2\^53/ })
})

test('an L1 entry names an L2 table and whether it is ours alone', (t) => {
  const decodeL1 = (hex: string): unknown => decodeL1Entry(...halves(hex), 16, 0x30000)
  t.is(decodeL1('00000000 00000000'), undefined)
  t.deepEqual(decodeL1('80000000 00040000'), { host: 0x40000, copied: true })
  t.deepEqual(decodeL1('00000001 00040000'), { host: 2 ** 32 + 0x40000, copied: false })
})

test('an L1 entry with COMPRESSED, a zero flag, reserved bits or a misaligned offset is corrupt', (t) => {
  for (const hex of ['c0000000 00040000', '80000000 00040001', '81000000 00040000', '80000000 00040200']) {
    const error = t.throws(() => decodeL1Entry(...halves(hex), 16, 0x30000), { code: 'ERR_CORRUPT' }, hex)
    t.like(error, { structure: 'L1 entry', offset: 0x30000 })
  }
  t.throws(() => decodeL1Entry(...halves('80200000 00000000'), 16, 0x30000), { message: /beyond 2\^53/ })
})

test('only a plain cluster with COPIED may be written in place', (t) => {
  const writable = (hex: string): boolean => isWritableInPlace(...halves(hex))
  t.true(writable('80000000 00050000'))
  t.true(writable('80000012 34560000'))
  t.false(writable('00000000 00050000'), 'shared')
  t.false(writable('80000000 00050001'), 'reads as zeros')
  t.false(writable('40000000 00050000'), 'compressed')
  t.false(writable('c0000000 00050000'), 'compressed, and COPIED by mistake')
  t.false(writable('00000000 00000000'), 'unallocated')
})

test('the host offset is bits 9 to 55 of an entry', (t) => {
  t.is(hostOf(...halves('ffffffff ffffffff')), 0xfffffffffffe00)
  t.is(hostOf(...halves('80000012 345601ff')), 0x1234560000)
})

test('entries are stored as the bytes that the specification asks for', (t) => {
  t.is(
    stored((view) => storeCopied(view, 8, 0x50000)),
    '8000000000050000',
  )
  t.is(
    stored((view) => storeCopied(view, 8, 2 ** 53 - 65536)),
    '801fffffffff0000',
  )
  t.is(
    stored((view) => storeZero(view, 8, undefined)),
    '0000000000000001',
  )
  t.is(
    stored((view) => storeZero(view, 8, 0x1234560000)),
    '8000001234560001',
  )
  t.is(
    stored((view) => storeUnallocated(view, 8)),
    '0000000000000000',
  )
})

test('the kind of an entry is what decoding says of it, errors included', (t) => {
  const seed = seedOfRun()
  t.log(`seed ${seed}`)
  const random = new SeededRandom(seed)
  const seen = new Set<string>()
  for (let count = 0; count < 20_000; count++) {
    const rules = {
      version: random.pick([2, 3]),
      clusterBits: random.between(9, 21),
      hasDataFile: random.chance(0.5),
      extendedL2: random.chance(0.5),
    } as const
    const flags = random.pick([0, 0x80000000, 0x40000000, 0xc0000000, 0x01000000, 0x80000000])
    const host = random.chance(0.3) ? 0 : random.integer(2 ** 22) * 2 ** rules.clusterBits
    const high =
      (flags | (Math.floor(host / 2 ** 32) + (random.chance(0.1) ? random.integer(2 ** 24) : 0))) >>> 0
    const low = (host % 2 ** 32) + (random.chance(0.5) ? random.pick([1, 1, 2, 0x100, 0x200]) : 0)
    const kind = kindOfL2Entry(high, low >>> 0, rules)
    seen.add(kind)
    let expected: ReturnType<typeof kindOfL2Entry>
    try {
      const entry = decodeL2Entry(high, low >>> 0, rules, 0)
      expected = entry.type === 'zero' && entry.host !== undefined ? 'zero-allocated' : entry.type
    } catch {
      expected = 'invalid'
    }
    if (kind !== expected)
      t.is(kind, expected, `${high.toString(16)} ${low.toString(16)} ${JSON.stringify(rules)}`)
  }
  t.deepEqual([...seen].sort(), ['compressed', 'invalid', 'normal', 'unallocated', 'zero', 'zero-allocated'])
})
