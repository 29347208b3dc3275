import test from 'ava'
import { runProgram } from '../support/child.js'
import { makeFolder } from '../support/temp-folder.js'

test('a file that was forgotten without being closed is written out and its descriptor is freed', async (t) => {
  const program = new URL('./programs/abandon-files.js', import.meta.url)
  const result = await runProgram(program, [await makeFolder(t)], { nodeArguments: ['--expose-gc'] })
  t.is(result.code, 0, result.stderr)
  const { most, left, written } = JSON.parse(result.stdout) as { most: number; left: number; written: number }
  t.true(most >= 1)
  t.is(left, 0)
  t.is(written, 20)
})

test('a file is not forgotten while somebody waits for room in its queue, whom nobody else knows', async (t) => {
  const program = new URL('./programs/wait-for-room.js', import.meta.url)
  const result = await runProgram(program, [await makeFolder(t)], { nodeArguments: ['--expose-gc'] })
  t.is(result.code, 0, result.stderr)
  t.is(result.stdout, '10', 'all have come to their end')
})

test('a file for which two wait is not forgotten before the second is through, and then it is', async (t) => {
  const program = new URL('./programs/keep-for-two.js', import.meta.url)
  const result = await runProgram(program, [], { nodeArguments: ['--expose-gc'] })
  t.is(result.code, 0, result.stderr)
  t.deepEqual(JSON.parse(result.stdout), [true, true, false, true, true, false])
})
