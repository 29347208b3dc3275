import test from 'ava'
import { Qcow2Error } from '../../lib/base/errors.js'
import { section, type Section } from '../../lib/base/units.js'
import { UnsyncedClusters } from '../../lib/qcow2/unsynced-clusters.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { otherwise } from '../crash/altered-backend.js'

/** A file whose sync has failed when `durable` was. */
function setUp(): { clusters: UnsyncedClusters; fail: (durable: Section) => void } {
  let poisoned: Qcow2Error | undefined
  let durableSection = section(0)
  const backend = otherwise(
    new MemoryBackend(),
    Object.defineProperties(
      {},
      {
        poisoned: { enumerable: true, get: () => poisoned },
        durableSection: { enumerable: true, get: () => durableSection },
      },
    ),
  )
  return {
    clusters: new UnsyncedClusters(backend),
    fail: (durable) => {
      durableSection = durable
      poisoned = new Qcow2Error('ERR_IO', 'EIO', { errno: 5 })
    },
  }
}

test('while the file is sound everything can be read', (t) => {
  const { clusters } = setUp()
  clusters.add(4096, 4096, section(1))
  t.notThrows(() => clusters.refuse(4096, 4096))
})

test('after a failure what was not durable is refused, to the byte, and nothing else', (t) => {
  const { clusters, fail } = setUp()
  clusters.add(4096, 4096, section(1))
  clusters.add(8192, 4096, section(2))
  clusters.add(12288, 512, section(2))
  fail(section(1))
  t.notThrows(() => clusters.refuse(0, 8192))
  t.notThrows(() => clusters.refuse(12800, 512))
  for (const [host, length] of [
    [8191, 2],
    [9000, 1],
    [12799, 4000],
    [0, 20000],
  ] as const) {
    t.throws(() => clusters.refuse(host, length), { code: 'ERR_POISONED' }, `${host}`)
  }
})

test('what has become durable is forgotten, and what has not is kept', (t) => {
  const { clusters, fail } = setUp()
  for (let at = 1; at <= 100; at++) clusters.add(at * 1024, 512, section(at))
  fail(section(60))
  for (let at = 101; at <= 110; at++) clusters.add(at * 1024, 512, section(at))
  for (let at = 1; at <= 110; at++) {
    if (at <= 60) t.notThrows(() => clusters.refuse(at * 1024, 512))
    else t.throws(() => clusters.refuse(at * 1024, 512), { code: 'ERR_POISONED' })
  }
})
