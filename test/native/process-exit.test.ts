import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { runProgram } from '../support/child.js'
import { makeFolder } from '../support/temp-folder.js'

const program = new URL('./programs/end-with-work.js', import.meta.url)
const unit = 4096

for (const direct of [false, true]) {
  const mode = direct ? 'O_DIRECT' : 'the page cache'
  for (const { way, code } of [
    { way: 'exit', code: 7 },
    { way: 'throw', code: 1 },
  ]) {
    test(`a process that ends by ${way} with work in flight, past or through ${mode}, ends orderly`, async (t) => {
      const path = join(await makeFolder(t), 'file')
      const result = await runProgram(program, [path, way, String(direct)])
      t.is(result.signal, null)
      t.is(result.code, code, result.stderr)
      // What was queued is written, in order: no later section without the earlier ones.
      const bytes = await readFile(path)
      t.deepEqual([bytes[0], bytes[unit], bytes[2 * unit]], [1, 2, 3])
    })
  }
}

test('a process stays alive until idle metadata is written, and no longer', async (t) => {
  const path = join(await makeFolder(t), 'file')
  const result = await runProgram(program, [path, 'natural'])
  t.is(result.code, 0, result.stderr)
  const bytes = await readFile(path)
  t.deepEqual([bytes[0], bytes[unit], bytes[2 * unit]], [1, 2, 3])
})

test('metadata that nobody will ever ask for does not keep a process alive, and is written at its end', async (t) => {
  const path = join(await makeFolder(t), 'file')
  const result = await runProgram(program, [path, 'kept'])
  t.is(result.code, 0, result.stderr)
  const bytes = await readFile(path)
  t.deepEqual([bytes[0], bytes[unit], bytes[2 * unit]], [1, 2, 3])
})
