import test from 'ava'
import { addon } from '../../lib/native/addon.js'
import { AlignedMemory } from '../../lib/native/aligned-memory.js'

for (const alignment of [1, 512, 4096]) {
  test(`pieces of any length begin at multiples of ${alignment} and do not overlap`, (t) => {
    const memory = new AlignedMemory(alignment)
    const pieces = [1, 511, 512, 4096, 5000, 65536, 300_000, 2 * 1024 ** 2, 100, 262_144, 262_145].flatMap(
      (length) => Array.from({ length: 5 }, () => memory.take(length)),
    )
    for (const [index, piece] of pieces.entries()) {
      t.is(addon().misalignment(piece, alignment), 0)
      piece.fill(index + 1)
    }
    t.true(pieces.every((piece, index) => piece.every((byte) => byte === index + 1)))
  })
}

test('a piece that came back is handed out again to who asks for the same length', (t) => {
  const memory = new AlignedMemory(512)
  const piece = memory.take(4096)
  memory.give(piece)
  t.not(memory.take(4000), piece)
  t.is(memory.take(4096), piece)
  t.not(memory.take(4096), piece)
})

test('only so much is kept', (t) => {
  const memory = new AlignedMemory(512)
  const pieces = Array.from({ length: 8 }, () => memory.take(1024 ** 2))
  for (const piece of pieces) memory.give(piece)
  const again = Array.from({ length: 8 }, () => memory.take(1024 ** 2))
  t.is(again.filter((piece) => pieces.includes(piece)).length, 4)
})

test('an alignment that is none is refused', (t) => {
  for (const alignment of [0, 3, 1000, 2 ** 21, Number.NaN]) t.throws(() => new AlignedMemory(alignment))
  t.throws(() => addon().misalignment(new Uint8Array(1), 0), { instanceOf: TypeError })
  t.throws(() => addon().misalignment('bytes' as unknown as Uint8Array, 512), { instanceOf: TypeError })
})
