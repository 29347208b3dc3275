import test from 'ava'
import { SectorCipher } from '../../lib/luks/sector-cipher.js'
import { EncryptedData } from '../../lib/qcow2/encrypted-data.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SeededRandom, seedOfRun } from '../support/seeded-random.js'

const spec = {
  cipherAlg: 'aes-256',
  cipherMode: 'xts',
  ivgenAlg: 'plain64',
  ivgenHashAlg: undefined,
} as const
const cipher = new SectorCipher(
  spec,
  Uint8Array.from({ length: 64 }, (_, index) => index),
)
const size = 64 * 1024

async function filled(
  seed?: number,
): Promise<{ memory: MemoryBackend; data: EncryptedData; model: Uint8Array }> {
  const memory = new MemoryBackend(seed === undefined ? {} : { seed })
  const data = new EncryptedData(memory, cipher, 'host')
  await data.writeZeroes(0, size, { unmap: true }, 0)
  return { memory, data, model: new Uint8Array(size) }
}

test('zeros are written, and read as zeros', async (t) => {
  const { memory, data, model } = await filled()
  const bytes = new Uint8Array(size).fill(9)
  await data.read(bytes, 0, 0)
  t.deepEqual(bytes, model)
  t.false(
    memory.contents
      .toBytes()
      .subarray(0, 512)
      .every((byte) => byte === 0),
  )
})

test('writes of any alignment at once lose nothing of each other, nor do reads see half of one', async (t) => {
  const seed = seedOfRun()
  t.log(`QCOW2_SEED=${seed}`)
  const random = new SeededRandom(seed)
  for (let round = 0; round < 30; round++) {
    const { data, model } = await filled(random.integer(2 ** 30))
    for (let step = 0; step < 5; step++) {
      const points = Array.from({ length: 40 }, () => random.integer(4096)).sort((a, b) => a - b)
      const before = model.slice()
      const work: Promise<void>[] = []
      for (let index = 0; index + 1 < points.length; index++) {
        const [start, end] = [points[index] as number, points[index + 1] as number]
        if (start === end) continue
        if (random.chance(0.6)) {
          const bytes = random.bytes(end - start)
          model.set(bytes, start)
          work.push(data.write(bytes, start, start))
        } else {
          const bytes = new Uint8Array(end - start)
          const expected = before.slice(start, end)
          work.push(data.read(bytes, start, start).then(() => void t.deepEqual(bytes, expected)))
        }
      }
      await Promise.all(work)
    }
    const all = new Uint8Array(size)
    await data.read(all, 0, 0)
    t.deepEqual(all, model, `round ${round}`)
  }
})

test('a part of a sector and the whole of it, written at once, leave every byte as one of them wrote it', async (t) => {
  for (let seed = 0; seed < 20; seed++) {
    const { data } = await filled(seed)
    await Promise.all([
      data.write(new Uint8Array(100).fill(1), 100, 100),
      data.write(new Uint8Array(512).fill(2), 0, 0),
    ])
    const bytes = new Uint8Array(512)
    await data.read(bytes, 0, 0)
    t.true(bytes.every((byte, at) => byte === 2 || (byte === 1 && at >= 100 && at < 200)))
  }
})

test('long requests go in pieces, and what a caller writes is not altered', async (t) => {
  const memory = new MemoryBackend()
  const data = new EncryptedData(memory, cipher, 'host')
  const bytes = new SeededRandom(1).bytes(1_500_001)
  const copy = bytes.slice()
  await data.write(bytes, 513, 513)
  t.deepEqual(bytes, copy)
  const read = new Uint8Array(bytes.length)
  await data.read(read, 513, 513)
  t.true(Buffer.from(read).equals(copy))
  t.true(memory.stats().dataWrites >= 3)
})

test('the legacy AES goes by the place in the disk, and is not written', async (t) => {
  const memory = new MemoryBackend()
  await new EncryptedData(memory, cipher, 'host').write(new Uint8Array(512).fill(7), 5 * 512, 0)
  const data = new EncryptedData(memory, cipher, 'guest')
  const bytes = new Uint8Array(512)
  await data.read(bytes, 5 * 512, 5 * 512)
  t.true(bytes.every((byte) => byte === 7))
  await data.read(bytes, 5 * 512, 6 * 512)
  t.false(bytes.every((byte) => byte === 7))
  await t.throwsAsync(data.write(bytes, 0, 0), { code: 'ERR_NOT_SUPPORTED' })
})
