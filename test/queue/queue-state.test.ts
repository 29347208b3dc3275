import { constants } from 'node:os'
import test from 'ava'
import { section } from '../../lib/base/units.js'
import { addon } from '../../lib/native/addon.js'
import { QueueState } from '../../lib/queue/queue-state.js'

const places = addon().constants.state

test('a fresh queue is empty and sound', (t) => {
  const state = new QueueState('/disk', places)
  t.is(state.durableSection, section(0))
  t.deepEqual(state.queued, { bytes: 0, nodes: 0 })
  t.is(state.poisoned, undefined)
  t.is(state.failure, undefined)
})

test('what the addon writes is seen', (t) => {
  const state = new QueueState('/disk', places)
  state.numbers[places.durableSection] = 7
  state.numbers[places.queuedBytes] = 8192
  state.numbers[places.queuedNodes] = 2
  t.is(state.durableSection, section(7))
  t.deepEqual(state.queued, { bytes: 8192, nodes: 2 })
})

test('a full disk is a failure for the time being, another failure one for good', (t) => {
  const state = new QueueState('/disk', places)
  state.numbers[places.stalled] = constants.errno.ENOSPC
  t.like(state.failure, { forGood: false, error: { code: 'ERR_NO_SPACE' } })
  t.is(state.poisoned, undefined)
  state.numbers[places.stalled] = 0
  t.is(state.failure, undefined)
  state.numbers[places.poisoned] = constants.errno.EIO
  t.like(state.failure, { forGood: true, error: { code: 'ERR_POISONED' } })
  t.like(state.poisoned, { code: 'ERR_IO', errno: constants.errno.EIO })
  t.is(state.poisoned, state.poisoned, 'one and the same error every time')
})
