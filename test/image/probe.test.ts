import test from 'ava'
import { hasMagic, probeFormat } from '../../lib/image/probe.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'

async function looksLike(bytes: readonly number[]): Promise<string> {
  const backend = new MemoryBackend()
  if (bytes.length > 0) await backend.write(Uint8Array.from(bytes), 0)
  const format = await probeFormat(backend)
  await backend.close()
  return format
}

test('what begins with the magic is qcow2, anything else is raw', async (t) => {
  t.is(await looksLike([0x51, 0x46, 0x49, 0xfb]), 'qcow2')
  t.is(await looksLike([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3]), 'qcow2')
  t.is(await looksLike([0x51, 0x46, 0x49]), 'raw')
  t.is(await looksLike([0x51, 0x46, 0x49, 0xfa]), 'raw')
  t.is(await looksLike([]), 'raw')
})

test('the magic is four bytes', (t) => {
  t.true(hasMagic(Uint8Array.of(0x51, 0x46, 0x49, 0xfb)))
  t.false(hasMagic(Uint8Array.of(0x51, 0x46, 0x49)))
})
