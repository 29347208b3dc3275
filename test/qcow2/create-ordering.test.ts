import test from 'ava'
import { publishImage } from '../../lib/qcow2/create-ordering.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'

test('a sync stands between everything else and the first sector, and one behind it', async (t) => {
  const backend = new MemoryBackend({ record: true })
  await publishImage(backend, new Uint8Array(512).fill(1), async () => {
    await backend.write(new Uint8Array(512).fill(2), 1024)
    await backend.write(new Uint8Array(512).fill(3), 512)
  })
  const events = backend.log.flatMap((event) => {
    if (event.type === 'NSUB') return [`write ${event.offset}`]
    return event.type === 'SSUB' ? ['sync'] : []
  })
  t.deepEqual(events, ['write 1024', 'write 512', 'sync', 'write 0', 'sync'])
})

test('when the rest cannot be written, the file does not become an image', async (t) => {
  const backend = new MemoryBackend({
    fault: ({ kind, offset }) => (kind === 'write' && offset === 1024 ? 28 : undefined),
  })
  const publish = publishImage(backend, new Uint8Array(512).fill(1), () =>
    backend.write(new Uint8Array(512).fill(2), 1024),
  )
  await t.throwsAsync(publish, { code: 'ERR_NO_SPACE' })
  const first = new Uint8Array(512)
  await backend.read(first, 0)
  t.deepEqual(first, new Uint8Array(512))
})
