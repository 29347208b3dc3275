import { spawnSync } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { EarlySyncs, syncEarly } from '../../lib/operations/early-sync.js'
import { cliPath, runCommand } from '../support/cli.js'
import { makeFolder } from '../support/temp-folder.js'

test('a sync begins with every so many bytes, when the one before is over', async (t) => {
  const begun: (() => void)[] = []
  const syncs = new EarlySyncs(() => new Promise((resolve) => begun.push(resolve)), 100)
  syncs.wrote(99)
  t.is(begun.length, 0)
  syncs.wrote(1)
  t.is(begun.length, 1)
  syncs.wrote(500)
  t.is(begun.length, 1, 'one runs')
  begun[0]?.()
  await syncs.ended()
  t.is(begun.length, 1, 'nobody asks for more at the end')
  syncs.wrote(0)
  t.is(begun.length, 2, 'what was written meanwhile')
  syncs.wrote(99)
  begun[1]?.()
  await syncs.ended()
  t.is(begun.length, 2)
})

test('a sync that fails ends the copy: the next one would succeed', async (t) => {
  const syncs = new EarlySyncs(() => Promise.reject(new Error('lost')), 100)
  syncs.wrote(100)
  await t.throwsAsync(syncs.ended(), { message: 'lost' })
  t.throws(() => syncs.wrote(1), { message: 'lost' })
})

test('what the copy answers, and what it throws, comes through', async (t) => {
  const file = join(await makeFolder(t), 'file')
  await writeFile(file, 'bytes')
  const copied = async (wrote: (bytes: number) => void): Promise<number> => {
    wrote(2 ** 27)
    return Promise.resolve(5)
  }
  for (const path of [file, undefined]) {
    t.is(await syncEarly(path, copied), 5)
    await t.throwsAsync(
      syncEarly(path, () => Promise.reject(new Error('stop'))),
      { message: 'stop' },
    )
  }
})

const canTrace = spawnSync('strace', ['-V']).status === 0 && process.env['LD_PRELOAD'] === undefined

test('a long conversion syncs what it has written while it goes on; past the page cache only at its end', async (t) => {
  if (!canTrace) {
    t.log('skipped: needs strace, and no preloaded sanitiser')
    t.pass()
    return
  }
  const folder = await makeFolder(t)
  await writeFile(join(folder, 'source'), Buffer.alloc(72 * 1024 * 1024, 1))
  for (const [cache, early] of [
    ['unsafe', 1],
    ['none', 0],
  ] as const) {
    const trace = join(folder, cache)
    const strace = ['strace', '-f', '-y', '-o', trace, '-e', 'trace=fdatasync,fsync']
    const convert = ['convert', '-t', cache, '-f', 'raw', '-O', 'raw', 'source', 'target']
    const { code, stderr } = await runCommand([...strace, process.execPath, cliPath, ...convert], folder)
    t.is(code, 0, stderr)
    const calls = (await readFile(trace, 'utf8')).split('\n').filter((line) => line.includes('.target'))
    // The queue of an image that is synced by flushes makes one of its own when it is closed.
    const syncs = calls.filter((line) => line.includes('fdatasync')).length - (cache === 'none' ? 1 : 0)
    t.is(syncs, early, calls.join('\n'))
    t.is(calls.filter((line) => line.includes('fsync(')).length, 1, calls.join('\n'))
  }
})
