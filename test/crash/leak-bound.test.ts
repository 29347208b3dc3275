import test from 'ava'
import { readLog } from './device-log.js'
import { LeakBound } from './leak-bound.js'
import { sequenceWorkload } from './sequences.js'
import { usual, withSetting } from './setting.js'
import { record } from './workload.js'

test('what flushes have seen off explains no leaks', async (t) => {
  const names = ['write', 'overwrite', 'flush', 'flush', 'flush'] as const
  const workload = withSetting(await sequenceWorkload('half-full', 512, names, 1), {
    ...usual,
    reserves: false,
  })
  const recording = await record(workload)
  const log = readLog(recording.events, recording.start)
  const bound = new LeakBound(recording, log)
  const endOf = (step: number): number => log.requests.get(step)?.ended ?? Number.NaN
  t.is(bound.at(-1), 0)
  t.true(bound.at(endOf(0)) > 0)
  t.true(bound.at(endOf(1)) > bound.at(endOf(0)))
  t.is(bound.at(endOf(3)), bound.at(endOf(1)), 'two flushes are not enough')
  t.is(bound.at(endOf(4)), 0)
})

test('what is reserved, and what had leaked before, may be leaked at any time', async (t) => {
  const workload = await sequenceWorkload('half-full', 512, ['flush'], 1)
  const recording = await record({ ...workload, start: { ...workload.start, leaks: 5 } })
  const bound = new LeakBound(recording, readLog(recording.events, recording.start))
  t.is(bound.at(-1), 5 + 16)
})
