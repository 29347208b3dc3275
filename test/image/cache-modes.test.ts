import test from 'ava'
import { cacheModeNames, cacheOption, cacheOptionsOf } from '../../lib/image/cache-modes.js'

const option = (value: unknown) => cacheOption(value, 'cache')

test('the six names are the six combinations of page cache and syncs', (t) => {
  t.deepEqual(
    cacheModeNames.map((name) => [name, option(name)]),
    [
      ['writeback', { direct: false, syncPolicy: 'flush' }],
      ['none', { direct: true, syncPolicy: 'flush' }],
      ['writethrough', { direct: false, syncPolicy: 'write' }],
      ['directsync', { direct: true, syncPolicy: 'write' }],
      ['unsafe', { direct: false, syncPolicy: 'never' }],
      ['unsafe-direct', { direct: true, syncPolicy: 'never' }],
    ],
  )
})

test('an object says the two apart, or changes what a name says', (t) => {
  t.deepEqual(option({ direct: true, sync: 'never' }), { direct: true, syncPolicy: 'never' })
  t.deepEqual(option({ mode: 'none', sync: 'write' }), { direct: true, syncPolicy: 'write' })
  t.deepEqual(option({}), { direct: false, syncPolicy: 'flush' })
})

test('tuning is kept apart from the two choices', (t) => {
  t.deepEqual(option({ mode: 'none', queueBytes: 1024 * 1024, idleMs: 0, l2CacheBytes: 0 }), {
    direct: true,
    syncPolicy: 'flush',
    queueBytes: 1024 * 1024,
    idleMs: 0,
    l2CacheBytes: 0,
  })
})

test('what comes out can be put in again', (t) => {
  const settings = option({ mode: 'directsync', queueNodes: 100 })
  t.deepEqual(option(cacheOptionsOf(settings)), settings)
})

test('anything else is refused by name', (t) => {
  t.throws(() => option('writeback '), { code: 'ERR_INVALID_OPTION', message: /did you mean "writeback"\?/ })
  t.throws(() => option({ mode: 'fast' }), { code: 'ERR_INVALID_OPTION' })
  t.throws(() => option({ synk: 'never' }), { code: 'ERR_INVALID_OPTION', message: /did you mean "sync"\?/ })
  t.throws(() => option({ queueBytes: -1 }), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => option({ preallocation: 'metadata' }), { code: 'ERR_INVALID_OPTION' })
  t.throws(() => option(7), { code: 'ERR_INVALID_OPTION' })
  t.throws(() => option(null), { code: 'ERR_INVALID_OPTION' })
})
