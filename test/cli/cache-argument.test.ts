import test from 'ava'
import { cacheArgument } from '../../lib/cli/cache-argument.js'
import { UsageError } from '../../lib/cli/usage-error.js'

for (const name of ['none', 'writeback', 'writethrough', 'directsync', 'unsafe', 'unsafe-direct'] as const) {
  test(`the cache mode ${name} is taken by its name`, (t) => {
    t.deepEqual(cacheArgument('cache', name), { cache: name })
  })
}

test('off is another name for none, and nothing given is nothing said', (t) => {
  t.deepEqual(cacheArgument('cache', 'off'), { cache: 'none' })
  t.deepEqual(cacheArgument('cache', undefined), {})
})

for (const name of ['', 'None', 'toString']) {
  test(`'${name}' is no cache mode`, (t) => {
    t.throws(() => cacheArgument('source cache', name), {
      instanceOf: UsageError,
      message: `Invalid source cache option: ${name}`,
    })
  })
}
