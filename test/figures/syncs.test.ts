import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'

const workloads = fileURLToPath(new URL('workloads.js', import.meta.url))

/** Count the fdatasync calls that a workload makes between its marks, as the kernel sees them. */
function syncsOf(name: string): number {
  const folder = mkdtempSync(join(tmpdir(), 'qcow2-figures-'))
  try {
    const trace = join(folder, 'trace')
    const calls = 'trace=fdatasync,fsync,access,faccessat,faccessat2'
    execFileSync('strace', [
      '-f',
      '-qq',
      '-o',
      trace,
      '-e',
      calls,
      process.execPath,
      workloads,
      name,
      join(folder, 'image.qcow2'),
    ])
    const lines = readFileSync(trace, 'utf8').split('\n')
    const begin = lines.findIndex((line) => line.includes('/figures-begin'))
    const end = lines.findIndex((line) => line.includes('/figures-end'))
    if (begin < 0 || end < begin) throw new Error('the workload left no marks in the trace')
    return lines.slice(begin, end).filter((line) => /\bf(data)?sync\(/.test(line)).length
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const figures = [
  { workload: 'sequentialAllocation', most: 5, what: '1000 allocating writes, 32 in flight, and one flush' },
  { workload: 'concurrentFlushes', most: 2, what: '32 concurrent flushes after 32 overwrites' },
  {
    workload: 'flushingWriters',
    most: 130,
    what: '1000 allocating writes of 64 writers, each followed by its flush',
  },
  {
    workload: 'durableWriter',
    most: 1020,
    what: '1000 allocating writes of one writer, each followed by its flush',
  },
  {
    workload: 'allocateAndDiscard',
    most: 6,
    what: '200 pairs of an allocating write and a discard elsewhere',
  },
] as const

for (const { workload, most, what } of figures) {
  test.serial(`${what} cost at most ${most} syncs`, (t) => {
    const syncs = syncsOf(workload)
    t.log(`${syncs} fdatasync calls`)
    t.true(syncs >= 1, 'a flush syncs')
    t.true(syncs <= most, `${syncs} fdatasync calls`)
  })
}
