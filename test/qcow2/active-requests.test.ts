import test from 'ava'
import { ActiveRequests } from '../../lib/qcow2/active-requests.js'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test('a request counts as running from its beginning to its end', (t) => {
  const active = new ActiveRequests()
  t.false(active.anyUpTo(0))
  const first = active.begin()
  t.is(active.newest, first)
  t.true(active.anyUpTo(first))
  active.end(first)
  t.false(active.anyUpTo(first))
})

test('a request that began later does not count', (t) => {
  const active = new ActiveRequests()
  const old = active.begin()
  const newest = active.newest
  const late = active.begin()
  t.true(active.anyUpTo(newest))
  active.end(old)
  t.false(active.anyUpTo(newest))
  t.true(active.anyUpTo(late))
})

test('the oldest request counts, whatever ends in between', (t) => {
  const active = new ActiveRequests()
  const tickets = [active.begin(), active.begin(), active.begin()]
  const [oldest = 0, middle = 0, newest = 0] = tickets
  active.end(middle)
  t.true(active.anyUpTo(middle), 'the oldest still runs')
  active.end(newest)
  t.true(active.anyUpTo(newest))
  active.end(oldest)
  t.false(active.anyUpTo(newest))
})

test('exclusive work waits for what runs, and what would begin waits for it', async (t) => {
  const active = new ActiveRequests()
  const running = active.begin()
  const events: string[] = []
  let finish = (): void => undefined
  const exclusive = active.exclusively(async () => {
    events.push('exclusive begins')
    await new Promise<void>((resolve) => {
      finish = resolve
    })
    events.push('exclusive ends')
  })
  const request = (async () => {
    while (active.gate !== undefined) await active.gate
    events.push('request begins')
  })()
  await turn()
  t.deepEqual(events, [])
  active.end(running)
  await turn()
  t.deepEqual(events, ['exclusive begins'])
  finish()
  await Promise.all([exclusive, request])
  t.deepEqual(events, ['exclusive begins', 'exclusive ends', 'request begins'])
  t.is(active.gate, undefined)
})

test('exclusive works run one after the other', async (t) => {
  const active = new ActiveRequests()
  let running = 0
  let most = 0
  const work = async (): Promise<void> => {
    running++
    most = Math.max(most, running)
    await turn()
    running--
  }
  await Promise.all([active.exclusively(work), active.exclusively(work), active.exclusively(work)])
  t.is(most, 1)
})

test('exclusive work that fails lets the others go on', async (t) => {
  const active = new ActiveRequests()
  const failure = new Error('no')
  await t.throwsAsync(
    active.exclusively(() => Promise.reject(failure)),
    { is: failure },
  )
  t.is(active.gate, undefined)
  t.is(await active.exclusively(() => Promise.resolve(7)), 7)
})
