import test from 'ava'
import { Qcow2Error } from '../../lib/base/errors.js'
import { FailurePolicy, type ImageEvent, type OnError } from '../../lib/image/failure-policy.js'

const full = new Qcow2Error('ERR_NO_SPACE', 'full', { errno: 28 })
const broken = new Qcow2Error('ERR_IO', 'broken', { errno: 5 })

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

test("'enospc' reports other failures, 'stop' holds those back too, and tells of it", async (t) => {
  await t.throwsAsync(policy('enospc').policy.run(failing(broken, 1).run, 'change'), { is: broken })
  const { policy: stop, events } = policy('stop')
  const done = stop.run(failing(broken, 1).run, 'change')
  await settle()
  t.deepEqual(events, [{ type: 'io-error', error: broken, stopped: true }])
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

test('a limit of the format is not held back: no room of the host would help', async (t) => {
  const limit = new Qcow2Error('ERR_NO_SPACE', 'the refcount table has reached its largest size')
  const { policy: stop, events } = policy('stop')
  await t.throwsAsync(stop.run(failing(limit, 1).run, 'change'), { is: limit })
  t.deepEqual(events, [{ type: 'no-space', error: limit, stopped: false }])
})

test('while one is held back all changes wait behind it and run in their order, one at a time', async (t) => {
  const { policy: enospc, events } = policy('enospc')
  const log: string[] = []
  const change = (name: string, failures: number): Promise<void> =>
    enospc.run(async () => {
      log.push(`${name} begins`)
      await settle()
      if (failures-- > 0) throw full
      log.push(`${name} ends`)
    }, 'change')
  const all = [change('first', 0), change('second', 1), change('third', 2)]
  await settle()
  await settle()
  all.push(change('fourth', 0))
  await enospc.run(async () => void log.push('a read'), 'read')
  await settle()
  t.deepEqual(log.splice(0), ['first begins', 'second begins', 'third begins', 'first ends', 'a read'])
  t.is(events.length, 1, 'told once, though two have failed')
  enospc.resume()
  enospc.resume()
  for (let turn = 0; turn < 6; turn++) await settle()
  t.deepEqual(log.splice(0), ['second begins', 'second ends', 'third begins'])
  t.is(events.length, 2)
  all.push(change('fifth', 0))
  enospc.resume()
  all.push(change('sixth', 0))
  await Promise.all(all)
  const last = ['third', 'fourth', 'fifth', 'sixth']
  t.deepEqual(
    log,
    last.flatMap((name) => [`${name} begins`, `${name} ends`]),
  )
  t.is(events.length, 2)
})

test('what was under way when others were held back ends first, and goes before them if it fails too', async (t) => {
  const { policy: enospc } = policy('enospc')
  const order: string[] = []
  let fail = (_: Error): void => undefined
  let attempts = 0
  const underWay = enospc.run(() => {
    if (attempts++ > 0) return Promise.resolve(void order.push('under way'))
    return new Promise<void>((_, reject) => {
      fail = reject
    })
  }, 'change')
  const first = enospc.run(failing(full, 1).run, 'change')
  await settle()
  const second = enospc.run(() => Promise.resolve(void order.push('second')), 'change')
  enospc.resume()
  await settle()
  t.deepEqual(order, [])
  fail(full)
  await settle()
  enospc.resume()
  await Promise.all([underWay, first, second])
  t.deepEqual(order, ['under way', 'second'])
})

test('what fails for another reason in its turn does not keep back what is behind it', async (t) => {
  const { policy: enospc } = policy('enospc')
  let runs = 0
  const first = enospc.run(() => Promise.reject(runs++ === 0 ? full : broken), 'change')
  const second = enospc.run(() => Promise.resolve('done'), 'change')
  await settle()
  enospc.resume()
  await t.throwsAsync(first, { is: broken })
  t.is(await second, 'done')
})

test('whoever is told may resume at once', async (t) => {
  const enospc: FailurePolicy = new FailurePolicy('enospc', () => enospc.resume())
  t.is(await enospc.run(failing(full, 3).run, 'change'), 'done')
})

test('resuming where nothing is held back does nothing', async (t) => {
  const { policy: enospc, events } = policy('enospc')
  enospc.resume()
  t.is(await enospc.run(failing(full, 0).run, 'change'), 'done')
  const held = enospc.run(failing(full, 1).run, 'change')
  await settle()
  t.is(events.length, 1, 'an earlier call is not remembered')
  enospc.resume()
  t.is(await held, 'done')
})

test('closing ends the waiting of those that had to wait behind another, too', async (t) => {
  const { policy: enospc } = policy('enospc')
  const first = enospc.run(failing(full, 1).run, 'change')
  await settle()
  const second = enospc.run(() => Promise.resolve('done'), 'change')
  enospc.close()
  await t.throwsAsync(first, { is: full })
  await t.throwsAsync(second, { is: full })
})

test.serial('what a listener throws is told to the process, and holds nothing up', async (t) => {
  const thrown: unknown[] = []
  const others = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  process.on('uncaughtException', (error) => thrown.push(error))
  t.teardown(() => {
    process.removeAllListeners('uncaughtException')
    for (const other of others) process.on('uncaughtException', other)
  })
  const mistake = new Error('a mistake of the listener')
  const broken = (onError: OnError): FailurePolicy =>
    new FailurePolicy(onError, () => {
      throw mistake
    })
  await t.throwsAsync(broken('report').run(failing(full, 1).run, 'change'), { is: full })
  const enospc = broken('enospc')
  const held = enospc.run(failing(full, 1).run, 'change')
  await settle()
  enospc.resume()
  const later = enospc.run(failing(full, 0).run, 'change')
  t.is(await held, 'done')
  t.is(await later, 'done')
  await settle()
  t.deepEqual(thrown, [mistake, mistake])
})
