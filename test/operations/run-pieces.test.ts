import test from 'ava'
import { runPieces } from '../../lib/operations/run-pieces.js'

async function* numbers(count: number): AsyncGenerator<number, void, undefined> {
  for (let number = 0; number < count; number++) yield number
}

test('every piece is worked on once, in memory that no other worker has meanwhile', async (t) => {
  const seen: number[] = []
  const inUse = new Set<Uint8Array>()
  let most = 0
  await runPieces(
    numbers(20),
    16,
    async (piece, memory) => {
      t.false(inUse.has(memory))
      t.is(memory.length, 16)
      inUse.add(memory)
      most = Math.max(most, inUse.size)
      await new Promise((resolve) => setImmediate(resolve))
      inUse.delete(memory)
      seen.push(piece)
    },
    { requests: 4, signal: undefined },
  )
  t.deepEqual(
    seen.sort((a, b) => a - b),
    Array.from({ length: 20 }, (_, index) => index),
  )
  t.is(most, 4)
})

test('a failure stops everybody, and is told when nobody works any more', async (t) => {
  let working = 0
  let begun = 0
  const run = runPieces(
    numbers(1000),
    1,
    async (piece) => {
      begun++
      working++
      await new Promise((resolve) => setImmediate(resolve))
      working--
      if (piece === 5) throw new Error('piece 5')
    },
    { requests: 3, signal: undefined },
  )
  await t.throwsAsync(run, { message: 'piece 5' })
  t.is(working, 0)
  t.true(begun < 20)
})

test('an abort ends it with its reason', async (t) => {
  const controller = new AbortController()
  const run = runPieces(
    numbers(1000),
    1,
    async (piece) => (piece === 3 ? controller.abort(new Error('enough')) : undefined),
    {
      requests: 2,
      signal: controller.signal,
    },
  )
  await t.throwsAsync(run, { message: 'enough' })
})
