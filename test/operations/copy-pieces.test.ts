import test from 'ava'
import { cutIntoPieces, type Piece } from '../../lib/operations/copy-pieces.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'

const limits = { data: 128, zero: 256 }

/** @param lengths  of data and zeros in turn, data first */
async function cut(lengths: readonly number[], unit: number): Promise<Piece[]> {
  const extents: Piece[] = []
  let offset = 0
  for (const [index, length] of lengths.entries()) {
    extents.push({ offset, length, zero: index % 2 === 1 })
    offset += length
  }
  async function* generate(): AsyncGenerator<Piece> {
    yield* extents
  }
  const pieces: Piece[] = []
  for await (const piece of cutIntoPieces(generate(), offset, unit, limits)) pieces.push(piece)
  return pieces
}

const short = (pieces: readonly Piece[]): string =>
  pieces.map(({ offset, length, zero }) => `${zero ? 'zero' : 'data'} ${offset}+${length}`).join(', ')

test('a unit that holds any data is data as a whole', async (t) => {
  t.is(short(await cut([100, 300], 64)), 'data 0+128, zero 128+256, zero 384+16')
  t.is(short(await cut([0, 100, 10, 200], 64)), 'zero 0+64, data 64+64, zero 128+182')
})

test('zeros that fill no unit disappear in the data around them', async (t) => {
  t.is(short(await cut([10, 50, 10, 40, 10], 64)), 'data 0+120')
})

test('pieces are no longer than their limits', async (t) => {
  t.is(
    short(await cut([300, 600], 64)),
    'data 0+128, data 128+128, data 256+64, zero 320+256, zero 576+256, zero 832+68',
  )
})

test('the end of the disk may be within a unit', async (t) => {
  t.is(short(await cut([70], 64)), 'data 0+70')
  t.is(short(await cut([0, 70], 64)), 'zero 0+70')
  t.is(short(await cut([], 64)), '')
})

test('any disk is covered once, in order, and no data is called zero', async (t) => {
  const seed = seedOfRun()
  t.log(`QCOW2_SEED=${seed}`)
  const random = new SeededRandom(seed)
  for (let round = 0; round < 500; round++) {
    const lengths = Array.from({ length: random.between(1, 12) }, () => random.between(1, 400))
    const pieces = await cut(lengths, 64)
    const size = lengths.reduce((sum, length) => sum + length, 0)
    let end = 0
    for (const piece of pieces) {
      t.is(piece.offset, end)
      t.is(piece.offset % 64, 0)
      end = piece.offset + piece.length
    }
    t.is(end, size)
    let offset = 0
    for (const [index, length] of lengths.entries()) {
      const hidden = pieces.some(
        (piece) => piece.zero && piece.offset < offset + length && offset < piece.offset + piece.length,
      )
      if (index % 2 === 0) t.false(hidden, lengths.join(' '))
      offset += length
    }
  }
})
