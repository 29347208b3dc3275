import test from 'ava'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { createRaw } from '../../lib/raw/create.js'

test('an empty image is a hole of whole sectors', async (t) => {
  const backend = new MemoryBackend()
  await createRaw(backend, { size: 1000, preallocation: 'off' })
  t.is(backend.length, 1024)
  t.deepEqual(await backend.extent(0), { length: 1024, data: false })
  await backend.close()
})

for (const preallocation of ['falloc', 'full'] as const) {
  test(`preallocation ${preallocation} takes the space and tells how far it is`, async (t) => {
    const backend = new MemoryBackend()
    const written: number[] = []
    const size = 20 * 1024 * 1024
    await createRaw(backend, { size, preallocation, onWritten: (bytes) => written.push(bytes) })
    t.is(backend.length, size)
    // Space that is only reserved still counts as a hole.
    t.is((await backend.extent(0)).data, preallocation === 'full')
    t.is(
      written.reduce((sum, bytes) => sum + bytes, 0),
      size,
    )
    t.true(written.length > 1)
    await backend.close()
  })
}

test('it can be aborted between two pieces', async (t) => {
  const backend = new MemoryBackend()
  const controller = new AbortController()
  const created = createRaw(backend, {
    size: 64 * 1024 * 1024,
    preallocation: 'falloc',
    signal: controller.signal,
    onWritten: () => controller.abort(new Error('enough')),
  })
  await t.throwsAsync(created, { message: 'enough' })
  await backend.close()
})
