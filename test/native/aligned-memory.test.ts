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

test('an alignment that is none is refused', (t) => {
  t.throws(() => addon().misalignment(new Uint8Array(1), 0), { instanceOf: TypeError })
  t.throws(() => addon().misalignment('bytes' as unknown as Uint8Array, 512), { instanceOf: TypeError })
})
