import test from 'ava'
import { addon } from '../../lib/native/addon.js'

/** Words as they stand in a file. */
function wordsOf(...words: bigint[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(words.length * 8))
  for (const [index, word] of words.entries()) view.setBigUint64(index * 8, word)
  return new Uint8Array(view.buffer)
}

test('a run of words ends before the first that is not a step more than the one before', (t) => {
  const wordRun = (bytes: Uint8Array, at: number, most: number, step: number): number =>
    addon().wordRun(bytes, at, most, step)
  const first = 0x8000_0000_ffff_0000n
  const bytes = wordsOf(first, first + 0x10000n, first + 0x20000n, first + 0x20000n, first + 0x20000n, 0n)
  t.is(wordRun(bytes, 0, 6, 0x10000), 3)
  t.is(wordRun(bytes, 8, 5, 0x10000), 2)
  t.is(wordRun(bytes, 16, 4, 0), 3)
  t.is(wordRun(bytes, 16, 2, 0), 2)
  t.is(wordRun(bytes, 40, 1, 512), 1)
  t.is(wordRun(bytes, 0, 0, 0), 0)
  t.is(wordRun(bytes, 48, 0, 0), 0)
  for (let byte = 0; byte < 8; byte++) {
    const other = wordsOf(first, first)
    other[8 + byte] = (other[8 + byte] as number) ^ 1
    t.is(wordRun(other, 0, 2, 0), 1)
  }
})

test('words may begin at any byte, and behind the largest one comes 0', (t) => {
  const bytes = new Uint8Array(25).fill(0xff)
  t.is(addon().wordRun(bytes, 1, 3, 0), 3)
  bytes.fill(0, 9)
  t.is(addon().wordRun(bytes, 1, 3, 1), 2)
})

test('what lies outside of the memory, or is no count, is refused', (t) => {
  const bytes = new Uint8Array(16)
  for (const [at, most, step] of [
    [0, 3, 0],
    [1, 2, 0],
    [17, 0, 0],
    [-8, 1, 0],
    [0.5, 1, 0],
    [0, 1.5, 0],
    [0, 2 ** 53, 0],
    [0, 2 ** 61, 0],
    [0, 1, -1],
    [0, 1, Number.NaN],
  ] as const) {
    t.throws(() => addon().wordRun(bytes, at, most, step), { instanceOf: TypeError })
  }
  const none = undefined as unknown as Uint8Array
  t.throws(() => addon().wordRun(none, 0, 0, 0), { instanceOf: TypeError })
})
