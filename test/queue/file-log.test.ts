import test from 'ava'
import type { NativeIoEvent } from '../../lib/native/types.js'
import { FileLog } from '../../lib/queue/file-log.js'

test('what the addon has logged and what was noted between come in one order, all since the beginning', (t) => {
  let logged: NativeIoEvent[] = []
  const log = new FileLog({
    note: (id) => logged.push({ type: 4, id, error: 0 }),
    takeLog: () => {
      const taken = logged
      logged = []
      return taken
    },
  })
  const bytes = Uint8Array.of(1, 2)
  logged.push({ type: 0, id: 1, error: 0, kind: 0, offset: 8, length: 2, section: 3, bytes })
  log.note({ type: 'GEND', id: 7, error: 0 })
  logged.push({ type: 1, id: 1, error: 5 }, { type: 2, id: 2, error: 0 })
  t.deepEqual(log.events as unknown[], [
    { type: 'NSUB', id: 1, kind: 'write', offset: 8, length: 2, section: 3, bytes },
    { type: 'GEND', id: 7, error: 0 },
    { type: 'NEND', id: 1, error: 5 },
    { type: 'SSUB', id: 2 },
  ])
  logged.push({ type: 3, id: 2, error: 0 })
  logged.push({
    type: 0,
    id: 3,
    error: 0,
    kind: 4,
    offset: 4096,
    length: 0,
    section: 0,
    bytes: new Uint8Array(0),
  })
  const [, , , , end, truncate] = log.events as unknown[]
  t.deepEqual(end, { type: 'SEND', id: 2, error: 0 })
  t.like(truncate, { kind: 'truncate', offset: 4096, section: undefined })
})
