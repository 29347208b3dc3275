import test from 'ava'
import { MemoryFile } from '../../lib/index.js'

test('what was put in comes out again, and zeros take no room', (t) => {
  const bytes = new Uint8Array(100_001)
  bytes[0] = 1
  bytes[50_000] = 2
  const file = MemoryFile.from(bytes, 'disk')
  t.is(file.name, 'disk')
  t.is(file.length, 100_001)
  t.is(file.heldBytes, 8192)
  t.deepEqual(file.bytes(), bytes)
  bytes[0] = 9
  t.is(file.bytes()[0], 1, 'it has a copy')
  t.is(new MemoryFile().length, 0)
  t.throws(() => new MemoryFile(''), { code: 'ERR_INVALID_OPTION' })
})

test('its room is that of what was written, whatever its length', async (t) => {
  const file = new MemoryFile()
  const backend = file.openBackend({ readOnly: false, syncPolicy: 'flush' })
  const terabyte = 1024 ** 4
  await backend.truncate(4 * terabyte)
  await backend.write(new Uint8Array(600_000).fill(7), terabyte)
  await backend.write(Uint8Array.of(1), 4 * terabyte)
  t.true(file.heldBytes < 620_000)
  t.throws(() => file.bytes(), { code: 'ERR_OUT_OF_RANGE' })
  const runs = [...file.runs()]
  t.deepEqual(
    runs.map(({ offset, bytes }) => [offset, bytes.length]),
    [
      [terabyte, 262_144],
      [terabyte + 262_144, 262_144],
      [terabyte + 524_288, 602_112 - 524_288],
      [4 * terabyte, 1],
    ],
  )
  t.is(
    runs[2]?.bytes.findIndex((byte) => byte === 0),
    600_000 - 524_288,
  )
  await backend.punch(0, 4 * terabyte)
  t.is(file.heldBytes, 4096)
  await backend.close()
})

test('a file that becomes another one is what it was to who has it open', async (t) => {
  const file = MemoryFile.from(Uint8Array.of(1, 2))
  const backend = file.openBackend({ readOnly: true, syncPolicy: 'flush' })
  const other = file.another()
  t.is(other.name, file.name)
  file.become(other)
  t.is(file.length, 0)
  const bytes = new Uint8Array(2)
  await backend.read(bytes, 0)
  t.deepEqual([...bytes], [1, 2])
  await backend.close()
})
