import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { callsOf, countSyncs } from './traces.js'

/** Count the fdatasync calls that a workload makes between its marks, as the kernel sees them. */
function syncsOf(name: string): number {
  const folder = mkdtempSync(join(tmpdir(), 'qcow2-figures-'))
  try {
    return countSyncs(callsOf(folder, name))
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
