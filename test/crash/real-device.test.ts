import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { assert } from '../../lib/base/assert.js'
import type { DeviceEvent } from '../../lib/queue/memory-device.js'
import { seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'
import { explore } from './explore.js'
import { randomWorkload } from './random-workload.js'
import { recordedFile } from './recorded-file.js'
import { sequenceWorkload } from './sequences.js'
import { usual, withSetting } from './setting.js'
import { record, type Recording, type RunOptions, type Workload } from './workload.js'

const exact = { ...usual, reserves: false }

async function onFile(
  t: ExecutionContext,
  workload: Workload,
  direct: boolean,
  options: RunOptions = {},
): Promise<Recording> {
  const path = join(await makeFolder(t), 'disk.qcow2')
  return await record(workload, { ...options, disk: await recordedFile(path, workload, direct) })
}

/** Changes and syncs in the order in which they began; neighbours of one section are one write. */
function changes(events: readonly DeviceEvent[]): string[] {
  const found: { kind: string; offset: number; length: number; section: number | undefined }[] = []
  for (const event of events) {
    if (event.type === 'SSUB') found.push({ kind: 'sync', offset: 0, length: 0, section: undefined })
    if (event.type !== 'NSUB') continue
    const { kind, offset, length, section } = event
    const last = found.at(-1)
    const isNext = last !== undefined && last.section !== undefined && last.section === section
    if (isNext && last.offset + last.length === offset) last.length += length
    else found.push({ kind, offset, length, section })
  }
  return found.map(
    ({ kind, offset, length, section }) =>
      `${kind} ${offset}+${length} ${section === undefined ? '' : 'node'}`,
  )
}

for (const direct of [false, true]) {
  const mode = direct ? 'O_DIRECT' : 'page cache'

  test.serial(`${mode}: a file and the simulated disk see the same changes in the same order`, async (t) => {
    const names = [
      'write',
      'flush',
      'overwrite',
      'discard',
      'flush',
      'write',
      'far',
      'zero',
      'flush',
      'grow',
    ] as const
    const workload = withSetting(await sequenceWorkload('half-full', 4096, names, 1), exact)
    const real = await onFile(t, workload, direct, { atRest: true })
    const simulated = await record(workload, { atRest: true })
    t.deepEqual(changes(real.events), changes(simulated.events))
    t.true(changes(real.events).length > 15)
  })

  test.serial(
    `${mode}: no crash of a run on a file corrupts the image or loses what a flush has promised`,
    async (t) => {
      const seed = seedOfRun()
      let states = 0
      for (let round = 0; round < 12; round++) {
        const clusterSize = direct ? 4096 : round % 2 === 0 ? 512 : 4096
        const workload = await randomWorkload(seed + round, { steps: 60, clusterSize })
        const recording = await onFile(t, workload, direct)
        const explored = explore(recording, { limits: { perPoint: 50, exhaustive: 256 }, seed })
        t.is(explored.finding, undefined, `seed ${seed}, round ${round}`)
        states += explored.states
      }
      t.log(`${states} states`)
      t.true(states > 1000)
    },
  )
}

test.serial('written through, a run on a file keeps what each request has promised', async (t) => {
  const seed = seedOfRun()
  const workload = withSetting(
    await randomWorkload(seed, { steps: 40, start: 'half-full', clusterSize: 4096 }),
    {
      ...usual,
      syncPolicy: 'write',
    },
  )
  const { states, finding } = explore(await onFile(t, workload, false), { seed })
  t.is(finding, undefined, `seed ${seed}`)
  t.true(states > 10)
})

test.serial(
  'the log of a file tells of each beginning before its end, and of the bytes as they were',
  async (t) => {
    const workload = withSetting(await sequenceWorkload('empty', 4096, ['write', 'flush'], 1), exact)
    const { events } = await onFile(t, workload, false)
    const open = new Set<string>()
    for (const event of events) {
      if (event.type === 'NSUB' || event.type === 'SSUB') open.add(`${event.type[0]}${event.id}`)
      if (event.type === 'NEND' || event.type === 'SEND') t.true(open.delete(`${event.type[0]}${event.id}`))
    }
    t.is(open.size, 0)
    const first = events.find((event) => event.type === 'NSUB' && event.kind === 'write')
    assert(first?.type === 'NSUB', 'something was written')
    t.is(first.bytes.length, first.length)
    const flushed = events.findIndex((event) => event.type === 'GEND' && event.id === 1)
    t.true(
      events.slice(0, flushed).some(({ type }) => type === 'SEND'),
      'a flush ends behind its sync',
    )
  },
)
