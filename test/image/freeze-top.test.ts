import test from 'ava'
import { freezeTop } from '../../lib/image/freeze-top.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { RawImage } from '../../lib/raw/raw-image.js'

class Locked extends MemoryBackend {
  readonly calls: unknown[] = []

  override lock(held?: unknown): undefined {
    this.calls.push(['lock', held])
    return undefined
  }

  override unlock(held?: unknown): void {
    this.calls.push(['unlock', held])
  }
}

test('what freezes holds a reader’s locks before it lets go of a writer’s', async (t) => {
  const backend = new Locked()
  const letGo = await freezeTop({ format: new RawImage(backend), backend }, true)
  t.deepEqual(backend.calls, [['lock', [203]]])
  letGo()
  t.deepEqual(backend.calls.slice(1), [['unlock', [101, 103]]])
  const without = new Locked()
  const done = await freezeTop({ format: new RawImage(without), backend: without }, false)
  done()
  t.deepEqual(without.calls, [])
})

test('what does not freeze has the locks that it had', async (t) => {
  const backend = new Locked()
  const format = new RawImage(backend)
  format.freeze = () => Promise.reject(new Error('no'))
  await t.throwsAsync(freezeTop({ format, backend }, true), { message: 'no' })
  t.deepEqual(backend.calls, [
    ['lock', [203]],
    ['unlock', [203]],
  ])
})
