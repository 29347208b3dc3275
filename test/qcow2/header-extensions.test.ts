import test from 'ava'
import {
  checkExtensions,
  describeIncompatible,
  escapeName,
  findExtension,
  scanExtensions,
  textUpToNul,
} from '../../lib/qcow2/header-extensions.js'

const facts = { clusterSize: 65536, cryptMethod: 0, autoclearFeatures: 0n }

/** A cluster of 4096 bytes with these extensions from byte 112 on. */
function clusterWith(...extensions: [type: number, data: Uint8Array | string][]): Uint8Array {
  const cluster = Buffer.alloc(4096)
  let at = 112
  for (const [type, data] of extensions) {
    const bytes = Buffer.from(data as string, 'latin1')
    cluster.writeUInt32BE(type, at)
    cluster.writeUInt32BE(bytes.length, at + 4)
    cluster.set(bytes, at + 8)
    at += 8 + Math.ceil(bytes.length / 8) * 8
  }
  return cluster
}

const names = (...entries: [group: number, bit: number, name: string][]): Buffer =>
  Buffer.concat(
    entries.map(([group, bit, name]) => {
      const entry = Buffer.alloc(48)
      entry.set([group, bit])
      entry.write(name, 2, 'utf8')
      return entry
    }),
  )

test('extensions are found in their order, padded to 8 bytes, up to the end marker', (t) => {
  const cluster = clusterWith(
    [0xe2792aca, 'raw'],
    [0x12345678, 'unknown!'],
    [0, ''],
    [0x44415441, 'never seen'],
  )
  const { found, broken } = scanExtensions(cluster, 112, 4096, 'a')
  t.is(broken, undefined)
  t.deepEqual(found, [
    { type: 0xe2792aca, offset: 112, data: new Uint8Array(Buffer.from('raw')) },
    { type: 0x12345678, offset: 128, data: new Uint8Array(Buffer.from('unknown!')) },
  ])
  t.is(findExtension(found, 0x12345678)?.offset, 128)
  t.is(findExtension(found, 0x44415441), undefined)
})

test('an extension keeps its bytes when the cluster changes', (t) => {
  const cluster = clusterWith([0xe2792aca, 'raw'])
  const { found } = scanExtensions(cluster, 112, 4096, 'a')
  cluster.fill(0)
  t.is(Buffer.from(found[0]?.data ?? []).toString(), 'raw')
})

test('the area ends where the name of the backing file begins', (t) => {
  const cluster = clusterWith([0xe2792aca, 'raw'], [0x12345678, 'behind'])
  t.is(scanExtensions(cluster, 112, 128, 'a').found.length, 1)
  t.is(scanExtensions(cluster, 112, 112, 'a').found.length, 0)
})

test('an extension that is longer than its area is refused, and those before it are known', (t) => {
  const cluster = Buffer.from(clusterWith([0xe2792aca, 'raw'], [0x23852875, 'x']))
  cluster.writeUInt32BE(4096 - 136 + 1, 132)
  const { found, broken } = scanExtensions(cluster, 112, 4096, 'a')
  t.is(found.length, 1)
  t.is(broken?.message, 'Header extension too large (bitmaps extension at offset 128)')
})

test('an extension that occurs twice is refused: nobody knows which one counts', (t) => {
  const { broken } = scanExtensions(clusterWith([0xe2792aca, 'raw'], [0xe2792aca, 'qcow2']), 112, 4096, 'a')
  t.is(broken?.message, 'Header extension occurs twice (backing format extension at offset 128)')
})

const bitmaps = (count: number, reserved: number, bytes: bigint, offset: bigint): Buffer => {
  const data = Buffer.alloc(24)
  data.writeUInt32BE(count, 0)
  data.writeUInt32BE(reserved, 4)
  data.writeBigUInt64BE(bytes, 8)
  data.writeBigUInt64BE(offset, 16)
  return data
}
const luks = (offset: bigint): Buffer => {
  const data = Buffer.alloc(16)
  data.writeBigUInt64BE(offset, 0)
  return data
}

const cases: [what: string, type: number, data: Buffer, facts: Partial<typeof facts>, message: RegExp][] = [
  ['a format of 16 bytes', 0xe2792aca, Buffer.alloc(16, 'x'), {}, /has 16 bytes, at most 15/],
  [
    'bitmaps of 23 bytes',
    0x23852875,
    Buffer.alloc(23),
    { autoclearFeatures: 1n },
    /Invalid extension length/,
  ],
  ['no bitmap', 0x23852875, bitmaps(0, 0, 32n, 65536n), { autoclearFeatures: 1n }, /zero bitmaps/],
  ['65536 bitmaps', 0x23852875, bitmaps(65536, 0, 32n, 65536n), { autoclearFeatures: 1n }, /65536 bitmaps/],
  ['a reserved field', 0x23852875, bitmaps(1, 1, 32n, 65536n), { autoclearFeatures: 1n }, /Reserved field/],
  [
    'a crooked directory',
    0x23852875,
    bitmaps(1, 0, 32n, 512n),
    { autoclearFeatures: 1n },
    /directory offset/,
  ],
  [
    'a huge directory',
    0x23852875,
    bitmaps(1, 0, 2n ** 26n, 65536n),
    { autoclearFeatures: 1n },
    /exceeds 67107840/,
  ],
  ['a LUKS header without LUKS', 0x0537be77, luks(65536n), {}, /only expected with LUKS/],
  ['a LUKS pointer of 15 bytes', 0x0537be77, Buffer.alloc(15), { cryptMethod: 2 }, /15 bytes, not 16/],
  ['a crooked LUKS header', 0x0537be77, luks(512n), { cryptMethod: 2 }, /not cluster aligned/],
]

for (const [what, type, data, more, message] of cases) {
  test(`${what} is refused`, (t) => {
    const { found } = scanExtensions(clusterWith([type, data]), 112, 4096, 'a')
    t.throws(() => checkExtensions(found, { ...facts, ...more }, 'a'), { code: 'ERR_CORRUPT', message })
  })
}

test('bitmaps whose autoclear bit is gone mean nothing, whatever they say', (t) => {
  const { found } = scanExtensions(clusterWith([0x23852875, bitmaps(0, 7, 1n, 1n)]), 112, 4096, 'a')
  t.notThrows(() => checkExtensions(found, facts, 'a'))
})

test('unknown bits are told by the names that the image gives them, the rest as a mask', (t) => {
  const table = names(
    [0, 5, 'holograms'],
    [1, 6, 'compatible'],
    [0, 63, 'time travel'],
    [0, 64, 'no such bit'],
  )
  const { found } = scanExtensions(clusterWith([0x6803f857, table]), 112, 4096, 'a')
  t.is(describeIncompatible(1n << 5n, found), 'holograms')
  t.is(
    describeIncompatible((1n << 63n) | (1n << 5n) | (1n << 9n), found),
    'holograms, time travel, Unknown incompatible feature: 200',
  )
  t.is(describeIncompatible(1n << 6n, found), 'Unknown incompatible feature: 40')
  t.is(describeIncompatible(1n << 5n, []), 'Unknown incompatible feature: 20')
})

test('a name from the image cannot play with the terminal', (t) => {
  const table = names([0, 5, '\u001b[31mevil\n\u202e'])
  const { found } = scanExtensions(clusterWith([0x6803f857, table]), 112, 4096, 'a')
  t.is(describeIncompatible(1n << 5n, found), '\\u{1b}[31mevil\\u{a}\\u{202e}')
  t.is(escapeName('größe 1'), 'größe 1')
})

test('text ends at its first NUL', (t) => {
  t.is(textUpToNul(Buffer.from('abc\0def')), 'abc')
  t.is(textUpToNul(Buffer.from('abc')), 'abc')
})
