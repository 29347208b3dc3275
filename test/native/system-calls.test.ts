import { spawnSync } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import type { Aio } from '../../lib/queue/block-queue.js'
import { runProgram } from '../support/child.js'
import { hasRing } from '../support/io-uring.js'
import { makeFolder } from '../support/temp-folder.js'

// The counters say what was meant to happen; here the kernel is asked.

const hasStrace = spawnSync('strace', ['-V']).status === 0
// strace follows a process by the mechanism that the sanitisers' leak and race checkers need for themselves.
const canTrace = hasStrace && process.env['LD_PRELOAD'] === undefined

type Calls = Record<string, number>

/** @returns how often each system call was made on the file, and what was begun by an io_uring; undefined where there is no strace */
async function countCalls(
  t: ExecutionContext,
  work: string,
  direct: boolean,
  aio: Aio | 'inline' = 'threads',
): Promise<Calls | undefined> {
  if (!canTrace) {
    t.log('skipped: needs strace, and no preloaded sanitiser')
    t.pass()
    return undefined
  }
  const folder = await makeFolder(t)
  const path = join(folder, 'file')
  const trace = join(folder, 'trace')
  const around = [
    'strace',
    '-f',
    '-y',
    '-o',
    trace,
    '-e',
    'trace=access,io_uring_enter,pread64,preadv,preadv2,pwrite64,pwritev,fdatasync,fsync,pwritev2',
  ]
  const program = new URL('./programs/count-calls.js', import.meta.url)
  const result = await runProgram(program, [path, String(direct), work, aio], { around })
  t.is(result.code, 0, result.stderr)
  const lines = (await readFile(trace, 'utf8')).split('\n')
  const from = lines.findIndex((line) => line.includes('/count-calls-begin'))
  const to = lines.findIndex((line) => line.includes('/count-calls-end'))
  t.true(from >= 0 && to > from)
  const calls: Calls = {}
  for (const line of lines.slice(from, to)) {
    const name = /^\d+\s+(\w+)\(/.exec(line)?.[1]
    if (name === undefined) continue
    const begun = Number(/^\d+\s+io_uring_enter\([^,]+, (\d+),/.exec(line)?.[1] ?? 0)
    if (line.includes(path) || begun > 0) calls[name] = (calls[name] ?? 0) + 1
    if (begun > 0) calls['begun'] = (calls['begun'] ?? 0) + begun
  }
  return calls
}

for (const direct of [false, true]) {
  const mode = direct ? 'O_DIRECT' : 'page cache'

  test(`${mode}: a data write is one pwrite64, a lone flush one fdatasync`, async (t) => {
    const calls = await countCalls(t, 'data', direct)
    if (calls !== undefined) t.deepEqual(calls, { pwrite64: 10, fdatasync: 1 })
  })

  test(`${mode}: 32 flushes of one turn cost one fdatasync`, async (t) => {
    const calls = await countCalls(t, 'flushes', direct)
    if (calls !== undefined) t.deepEqual(calls, { pwrite64: 32, fdatasync: 1 })
  })

  test(`${mode}: neighbours of one turn are written with one call, and read with one; what lies apart, and what is long, alone`, async (t) => {
    const calls = await countCalls(t, 'neighbours', direct)
    if (calls === undefined) return
    const { pwrite64 = 0, pwritev = 0, pread64 = 0, preadv = 0, ...others } = calls
    // Through memory of the pool's own, where O_DIRECT does not take the caller's: then it is one piece.
    t.is(pwrite64 + pwritev, 1 + 1 + 2)
    // Through the page cache they are done on the JavaScript thread: two alone, and then the next ones are read with one, 64 KiB each time.
    t.is(pread64 + preadv, direct ? 1 : 0)
    t.deepEqual(others, direct ? {} : { preadv2: 4 })
  })

  test(`${mode}: neighbours of a section go out in one pwritev, each section with one fdatasync behind it`, async (t) => {
    const calls = await countCalls(t, 'nodes', direct)
    if (calls !== undefined) t.deepEqual(calls, { pwritev: 1, pwrite64: 4, fdatasync: 3 })
  })

  test(`${mode}: when every write is synced nothing is merged`, async (t) => {
    const calls = await countCalls(t, 'every-write', direct)
    // Twelve nodes, a sync each, and that of the flush.
    if (calls !== undefined) t.deepEqual(calls, { pwrite64: 12, fdatasync: 13 })
  })

  test(`${mode}: when nothing is to be synced nothing is`, async (t) => {
    const calls = await countCalls(t, 'never', direct)
    if (calls !== undefined) t.deepEqual(calls, { pwritev: 1, pwrite64: 4 })
  })
}

test('inline writes: neighbours of several writers are written with one call', async (t) => {
  const calls = await countCalls(t, 'neighbours', false, 'inline')
  if (calls === undefined) return
  const { pwrite64 = 0, pwritev = 0 } = calls
  // The first alone, as nobody knows of the others yet; but if one took long, all of them by threads.
  t.true([4, 5].includes(pwrite64 + pwritev), `${pwrite64} and ${pwritev}`)
})

if (hasRing) {
  test('io_uring: 32 reads of one turn cost one system call, and one of several pieces is neighbours of up to 64 KiB', async (t) => {
    const apart = await countCalls(t, 'reads', true, 'io_uring')
    if (apart === undefined) return
    t.deepEqual(apart, { io_uring_enter: 1, begun: 32 })
    const together = await countCalls(t, 'neighbours', true, 'io_uring')
    const { pwrite64 = 0, ...others } = together ?? {}
    // 32 writes of 4 KiB side by side are two, and one stands alone; the two long ones have memory that O_DIRECT may not take. The reads are two.
    t.is((others['begun'] ?? 0) + pwrite64, 2 + 1 + 2 + 2)
    t.is(others['io_uring_enter'], 2)
    t.deepEqual(Object.keys(others).sort(), ['begun', 'io_uring_enter'])
  })
}
