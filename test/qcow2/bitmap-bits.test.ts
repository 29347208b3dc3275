import test from 'ava'
import { clearFrom, SparseBits } from '../../lib/qcow2/bitmap-bits.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'

const seed = seedOfRun()

function runsOf(bits: SparseBits, count: number): number[][] {
  return [...bits.runs(count)].map(({ first, end }) => [first, end])
}

test('runs of set bits come in order, joined over bytes and chunks, and end with the bitmap', (t) => {
  const bits = new SparseBits(512)
  t.true(bits.isEmpty)
  bits.set(4090, 4100)
  bits.set(7, 8)
  bits.set(4101, 4101)
  bits.set(2 ** 32, 2 ** 32 + 5)
  t.deepEqual(runsOf(bits, 2 ** 33), [
    [7, 9],
    [4090, 4102],
    [2 ** 32, 2 ** 32 + 6],
  ])
  t.deepEqual(runsOf(bits, 4095), [
    [7, 9],
    [4090, 4095],
  ])
  t.deepEqual(bits.pages(512), [0, 1, 2 ** 20])
})

test('a terabyte of set bits takes no memory to speak of', (t) => {
  const bits = new SparseBits(4096)
  const before = process.memoryUsage().arrayBuffers
  bits.set(3, 2 ** 31)
  t.true(process.memoryUsage().arrayBuffers - before < 2 ** 20)
  t.deepEqual(runsOf(bits, 2 ** 32), [[3, 2 ** 31 + 1]])
})

test(`random bits are those of a set (seed ${seed})`, (t) => {
  const random = new SeededRandom(seed)
  for (let round = 0; round < 30; round++) {
    const bits = new SparseBits(512)
    const model = new Set<number>()
    const count = 30_000
    for (let step = 0; step < 20; step++) {
      const first = random.integer(count)
      const last = Math.min(count - 1, first + random.integer(random.pick([1, 20, 9000])))
      bits.set(first, last)
      for (let bit = first; bit <= last; bit++) model.add(bit)
    }
    const cut = random.integer(count)
    const whole = bits.clone()
    bits.truncate(cut)
    const seen = new Set<number>()
    for (const { first, end } of bits.runs(count)) for (let bit = first; bit < end; bit++) seen.add(bit)
    t.deepEqual(
      [...seen],
      [...model].filter((bit) => bit < cut).sort((a, b) => a - b),
    )
    // By way of bytes, as in a file.
    const bytes = new Uint8Array(4096)
    t.true(whole.copyInto(bytes, 0))
    t.false(whole.copyInto(bytes, 0))
    const again = new SparseBits(512)
    again.add(bytes, 0)
    t.deepEqual(runsOf(again, count), runsOf(whole, count))
    t.is((((bytes[5] as number) >> 3) & 1) === 1, model.has(43))
  }
})

test('bits from a number on are cleared, and it is told whether there were any', (t) => {
  const bytes = Uint8Array.of(0xff, 0xff, 0)
  t.true(clearFrom(bytes, 11))
  t.deepEqual([...bytes], [0xff, 0x07, 0])
  t.false(clearFrom(bytes, 11))
})
