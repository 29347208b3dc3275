import test from 'ava'
import { Qcow2Error } from '../../lib/base/errors.js'
import { FailurePolicy, type ImageEvent, type OnError } from '../../lib/image/failure-policy.js'

const full = new Qcow2Error('ERR_NO_SPACE', 'full')
const broken = new Qcow2Error('ERR_IO', 'broken')

/** A request that fails as often as told, then succeeds. */
function failing(error: Error, times: number): { run: () => Promise<string>; runs: () => number } {
  let runs = 0
  return {
    runs: () => runs,
    run: () => (runs++ < times ? Promise.reject(error) : Promise.resolve('done')),
  }
}

function policy(onError: OnError): { policy: FailurePolicy; events: ImageEvent[] } {
  const events: ImageEvent[] = []
  return { policy: new FailurePolicy(onError, (event) => events.push(event)), events }
}

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test("'report' tells of a full host and rejects", async (t) => {
  const { policy: report, events } = policy('report')
  await t.throwsAsync(report.run(failing(full, 1).run, 'change'), { is: full })
  t.deepEqual(events, [{ type: 'no-space', error: full, stopped: false }])
})

test("'enospc' holds a change back until it is resumed, and runs it again", async (t) => {
  const { policy: enospc, events } = policy('enospc')
  const request = failing(full, 2)
  const done = enospc.run(request.run, 'change')
  await settle()
  t.is(request.runs(), 1)
  t.deepEqual(events, [{ type: 'no-space', error: full, stopped: true }])
  enospc.resume()
  await settle()
  t.is(request.runs(), 2)
  enospc.resume()
  t.is(await done, 'done')
})

test("'enospc' reports other failures, 'stop' holds those back too", async (t) => {
  await t.throwsAsync(policy('enospc').policy.run(failing(broken, 1).run, 'change'), { is: broken })
  const { policy: stop } = policy('stop')
  const done = stop.run(failing(broken, 1).run, 'change')
  await settle()
  stop.resume()
  t.is(await done, 'done')
})

test('reads are never held back', async (t) => {
  await t.throwsAsync(policy('stop').policy.run(failing(broken, 1).run, 'read'), { is: broken })
})

test('closing ends the waiting with what caused it', async (t) => {
  const { policy: stop } = policy('stop')
  const done = stop.run(failing(full, 9).run, 'change')
  await settle()
  stop.close()
  await t.throwsAsync(done, { is: full })
  await t.throwsAsync(stop.run(failing(full, 1).run, 'change'), { is: full })
})

test('damage and a poisoned file are told of', async (t) => {
  const { policy: report, events } = policy('stop')
  for (const code of ['ERR_CORRUPT', 'ERR_POISONED'] as const) {
    await t.throwsAsync(
      report.run(() => Promise.reject(new Qcow2Error(code, code)), 'change'),
      { code },
    )
  }
  t.deepEqual(
    events.map(({ type, stopped }) => [type, stopped]),
    [
      ['corrupt', false],
      ['poisoned', false],
    ],
  )
})

test('mistakes of ours pass untold', async (t) => {
  const { policy: stop, events } = policy('stop')
  await t.throwsAsync(
    stop.run(() => Promise.reject(new TypeError('no')), 'change'),
    { instanceOf: TypeError },
  )
  t.deepEqual(events, [])
})

test('that a file is poisoned is told once, whoever notices it first', async (t) => {
  const { policy: report, events } = policy('report')
  const error = new Qcow2Error('ERR_POISONED', 'poisoned')
  report.notice(error)
  report.notice(error)
  await t.throwsAsync(
    report.run(() => Promise.reject(error), 'change'),
    { is: error },
  )
  t.deepEqual(events, [{ type: 'poisoned', error, stopped: false }])
})
