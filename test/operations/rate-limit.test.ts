import { join } from 'node:path'
import test from 'ava'
import { convertImage, createImage, openImage } from '../../lib/index.js'
import { type Clock, RateLimit, rateLimitOf } from '../../lib/operations/rate-limit.js'
import { makeFolder } from '../support/temp-folder.js'

/** A clock that runs only while somebody waits. */
function clockOfWaits(): Clock & { readonly waits: number[] } {
  let now = 1000
  const waits: number[] = []
  const wait = (milliseconds: number): Promise<void> => {
    waits.push(milliseconds)
    now += milliseconds
    return Promise.resolve()
  }
  return { now: () => now, wait, waits }
}

test('what comes too early waits until those before it have had their time', async (t) => {
  const clock = clockOfWaits()
  const limit = new RateLimit(1000, clock)
  await limit.take(500, undefined)
  t.deepEqual(clock.waits, [], 'the first one does not wait')
  await limit.take(2000, undefined)
  await limit.take(1, undefined)
  t.deepEqual(clock.waits, [500, 2000])
})

test('no timer is asked for more than it can wait', async (t) => {
  const clock = clockOfWaits()
  const limit = new RateLimit(1, clock)
  await limit.take(2 ** 23, undefined)
  await limit.take(1, undefined)
  t.is(clock.waits.length, 4)
  t.is(
    clock.waits.reduce((sum, wait) => sum + wait, 0),
    2 ** 23 * 1000,
  )
})

test('none, or 0, is no limit', (t) => {
  t.is(rateLimitOf(undefined), undefined)
  t.is(rateLimitOf(0), undefined)
})

test('who waits can be aborted, and nothing is left behind', async (t) => {
  const folder = await makeFolder(t)
  const [source, target] = [join(folder, 'source'), join(folder, 'target')]
  await createImage(source, { size: 8 * 2 ** 20 })
  const image = await openImage(source)
  await image.write(new Uint8Array(8 * 2 ** 20).fill(1), 0)
  await image.close()
  const abort = new AbortController()
  const converting = convertImage(source, target, {
    format: 'raw',
    rateLimit: 1,
    signal: abort.signal,
    onProgress: ({ bytesDone }) => {
      if (bytesDone > 0) abort.abort(new Error('enough'))
    },
  })
  await t.throwsAsync(converting, { message: 'enough' })
  await t.throwsAsync(openImage(target), { code: 'ERR_NOT_FOUND' })
})
