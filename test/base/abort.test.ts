import test from 'ava'
import { abortable, type Progress, ProgressReporter, throwIfAborted } from '../../lib/base/abort.js'

test('an aborted signal throws its reason, one that is not and none at all do nothing', (t) => {
  const reason = new Error('enough')
  t.notThrows(() => throwIfAborted(undefined))
  t.notThrows(() => throwIfAborted(new AbortController().signal))
  t.is(
    t.throws(() => throwIfAborted(AbortSignal.abort(reason))),
    reason,
  )
})

test('waiting ends with the work or with the signal, whichever is first', async (t) => {
  const controller = new AbortController()
  t.is(await abortable(Promise.resolve(7), controller.signal), 7)
  t.is(await abortable(Promise.resolve(8), undefined), 8)
  await t.throwsAsync(abortable(Promise.reject(new Error('broken')), controller.signal), {
    message: 'broken',
  })
  const waiting = abortable(new Promise(() => undefined), controller.signal)
  controller.abort(new Error('enough'))
  await t.throwsAsync(waiting, { message: 'enough' })
  await t.throwsAsync(abortable(Promise.resolve(7), controller.signal), { message: 'enough' })
})

test('progress begins at nothing, ends with everything and is never reported twice at the end', (t) => {
  const reports: Progress[] = []
  const reporter = new ProgressReporter((progress) => reports.push(progress), 'copy', 10)
  for (let done = 0; done < 10; done++) reporter.advance(1)
  reporter.advance(1)
  t.deepEqual(reports[0], { phase: 'copy', bytesDone: 0, bytesTotal: 10 })
  t.deepEqual(reports.at(-1), { phase: 'copy', bytesDone: 10, bytesTotal: 10 })
  t.is(reports.filter(({ bytesDone }) => bytesDone === 10).length, 1)
})

test('a million steps make about a thousand reports', (t) => {
  let reports = 0
  const reporter = new ProgressReporter(() => reports++, 'copy', 1_000_000)
  for (let done = 0; done < 1_000_000; done++) reporter.advance(1)
  t.true(reports > 900 && reports < 1100, `${reports}`)
})

test('work of no bytes is reported as done at once', (t) => {
  const reports: Progress[] = []
  const reporter = new ProgressReporter((progress) => reports.push(progress), 'create', 0)
  reporter.advance(0)
  t.deepEqual(reports, [{ phase: 'create', bytesDone: 0, bytesTotal: 0 }])
})
