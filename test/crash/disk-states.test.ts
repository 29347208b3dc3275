import test from 'ava'
import type { DeviceEvent } from '../../lib/queue/memory-device.js'
import { section } from '../../lib/base/units.js'
import { SeededRandom } from '../support/seeded-random.js'
import { eachChoice } from './choices.js'
import { readLog } from './device-log.js'
import { DurableDisk } from './durable-disk.js'

type Write = { readonly offset: number; readonly values: number[]; readonly isNode?: boolean }

/** Writes that nothing covers, one after the other. `values`: of each sector. */
function logOf(writes: readonly Write[]): DeviceEvent[] {
  return writes.flatMap(({ offset, values, isNode }, id): DeviceEvent[] => {
    const bytes = new Uint8Array(values.length * 512)
    values.forEach((value, sector) => bytes.fill(value, sector * 512, (sector + 1) * 512))
    const placed = isNode === true ? section(1) : undefined
    return [
      { type: 'NSUB', id, kind: 'write', offset, length: bytes.length, section: placed, bytes },
      { type: 'NEND', id, error: 0 },
    ]
  })
}

/** The first byte of each sector, in all states that are visited. */
function statesOf(
  writes: readonly Write[],
  sectors: number,
  limits = { perPoint: 400, exhaustive: 4096 },
): Set<string> {
  const log = readLog(logOf(writes))
  const states = new DurableDisk(new Uint8Array(sectors * 512), log).statesAt(log.end)
  const seen = new Set<string>()
  eachChoice(
    states,
    limits,
    new SeededRandom(1),
    () => '',
    () => {
      states.settleLength()
      const shown = Array.from({ length: sectors }, (_, sector) => states.disk.bytes[sector * 512])
      const described = states.describe()
      seen.add(shown.join(','))
      // What is described can be chosen again.
      states.chooseDescribed(described)
      states.settleLength()
      if (
        shown.join() !==
        Array.from({ length: sectors }, (_, sector) => states.disk.bytes[sector * 512]).join()
      )
        seen.add('other')
      return false
    },
  )
  return seen
}

test('each sector of a metadata write is there or not, whatever the others are', (t) => {
  const seen = statesOf([{ offset: 0, values: [1, 2], isNode: true }], 2)
  t.deepEqual([...seen].sort(), ['0,0', '0,2', '1,0', '1,2'])
})

test('a sector of a metadata write that changes nothing is no choice', (t) => {
  t.deepEqual([...statesOf([{ offset: 0, values: [1, 0], isNode: true }], 2)].sort(), ['0,0', '1,0'])
})

test('of two writes to a sector the later one wins, and each can be missing', (t) => {
  const seen = statesOf(
    [
      { offset: 0, values: [1] },
      { offset: 0, values: [2] },
    ],
    1,
  )
  t.deepEqual([...seen].sort(), ['0', '1', '2'])
})

test('a data write is there, absent or torn', (t) => {
  const seen = statesOf([{ offset: 0, values: [1, 1, 1] }], 3)
  t.true(seen.has('0,0,0') && seen.has('1,1,1'))
  t.is(seen.size, 3)
})

test('sampling goes through all that is missing one, and only one', (t) => {
  const writes = Array.from({ length: 14 }, (_, at) => ({ offset: at * 512, values: [1], isNode: true }))
  const seen = statesOf(writes, 14, { perPoint: 100, exhaustive: 100 })
  for (let one = 0; one < 14; one++) {
    const all = new Array<number>(14).fill(1)
    t.true(seen.has(all.with(one, 0).join(',')))
    t.true(seen.has(new Array<number>(14).fill(0).with(one, 1).join(',')))
  }
  t.false(seen.has('other'))
})

test('what a sync has covered is there in every state, and the length of the file is at both ends', (t) => {
  const events: DeviceEvent[] = [
    ...logOf([{ offset: 0, values: [1], isNode: true }]),
    { type: 'SSUB', id: 8 },
    { type: 'SEND', id: 8, error: 0 },
  ]
  const late = logOf([{ offset: 512, values: [2] }]).map((event) => ({ ...event, id: 9 }))
  const log = readLog([...events, ...late])
  const states = new DurableDisk(new Uint8Array(512), log).statesAt(log.end)
  const seen: string[] = []
  eachChoice(
    states,
    { perPoint: 9, exhaustive: 99 },
    new SeededRandom(1),
    () => '',
    () => {
      states.settleLength()
      seen.push(`${states.disk.length}:${states.disk.bytes[0]},${states.disk.bytes[512]}`)
      return false
    },
  )
  t.deepEqual([...new Set(seen)].sort(), ['1024:1,0', '1024:1,2', '512:1,0'])
})

test('a truncate that failed does not cut what was made durable after it', (t) => {
  const bytes = new Uint8Array(512).fill(1)
  const written: DeviceEvent[] = [
    { type: 'NSUB', id: 1, kind: 'write', offset: 1024, length: 512, section: undefined, bytes },
    { type: 'NEND', id: 1, error: 0 },
    { type: 'SSUB', id: 2 },
    { type: 'SEND', id: 2, error: 0 },
  ]
  const cut = (error: number): DeviceEvent[] => [
    {
      type: 'NSUB',
      id: 0,
      kind: 'truncate',
      offset: 512,
      length: 0,
      section: undefined,
      bytes: new Uint8Array(0),
    },
    { type: 'NEND', id: 0, error },
  ]
  const lengths = (events: DeviceEvent[]): number[] => {
    const log = readLog(events)
    const states = new DurableDisk(new Uint8Array(4 * 512), log).statesAt(log.end)
    const seen = new Set<number>()
    const limits = { perPoint: 400, exhaustive: 4096 }
    eachChoice(
      states,
      limits,
      new SeededRandom(1),
      () => '',
      () => {
        states.settleLength()
        seen.add(states.disk.length)
        return false
      },
    )
    return [...seen].sort((a, b) => a - b)
  }
  t.deepEqual(lengths([...cut(5), ...written]), [1536, 2048])
  t.deepEqual(lengths([...written, ...cut(5)]), [512, 2048])
})
