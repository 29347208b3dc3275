import { readFileSync } from 'node:fs'
import test from 'ava'
import { addon } from '../../lib/native/addon.js'
import { alignedBytes } from '../../lib/native/aligned-memory.js'

test('memory of any length begins at a multiple of 4096, holds zeros, and overlaps no other', (t) => {
  const lengths = [0, 1, 511, 512, 4096, 5000, 65536, 300_000, 2 * 1024 ** 2]
  const wanted = lengths.flatMap((length) => Array.from({ length: 5 }, () => length))
  const pieces = wanted.map((length) => alignedBytes(length))
  for (const [index, piece] of pieces.entries()) {
    t.is(piece.length, wanted[index] ?? -1)
    t.is(addon().misalignment(piece, 4096), 0)
    t.true(piece.every((byte) => byte === 0))
    piece.fill(index + 1)
  }
  t.true(pieces.every((piece, index) => piece.every((byte) => byte === index + 1)))
})

/** Bytes of this process for which large pages were asked; undefined where the system has no such thing. */
function withLargePages(): number | undefined {
  if (process.platform !== 'linux') return undefined
  const mappings = readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)
  const [one = ''] = mappings
  if (!one.includes('THPeligible:')) return undefined
  const asked = mappings.filter((mapping) => /^VmFlags:.* hg\b/m.test(mapping))
  const sizes = asked.map((mapping) => Number(/^Size: +(\d+) kB/m.exec(mapping)?.[1]) * 1024)
  return sizes.reduce((sum, size) => sum + size, 0)
}

test('from 2 MiB on, memory begins at a large page, and large pages are asked for, for whole ones only', (t) => {
  const before = withLargePages()
  const small = alignedBytes(2 ** 21 - 1)
  t.is(withLargePages(), before)
  const large = alignedBytes(5 * 2 ** 20)
  t.is(addon().misalignment(large, 2 ** 21), 0)
  if (before === undefined) t.log('skipped: no large pages here')
  else t.is(withLargePages(), before + 2 ** 22)
  t.true(small.every((byte) => byte === 0) && large.every((byte) => byte === 0))
})

test('an alignment that is none is refused', (t) => {
  t.throws(() => addon().misalignment(new Uint8Array(1), 0), { instanceOf: TypeError })
  t.throws(() => addon().misalignment(new Uint8Array(1), 2 ** 21 + 1), { instanceOf: TypeError })
  t.throws(() => addon().useLargePages('bytes' as unknown as Uint8Array), { instanceOf: TypeError })
  t.throws(() => addon().misalignment('bytes' as unknown as Uint8Array, 512), { instanceOf: TypeError })
})
