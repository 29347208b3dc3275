import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { finished, pipeline } from 'node:stream/promises'
import test, { type ExecutionContext } from 'ava'
import { createImage, type DiskImage, openImage, type ReadStreamOptions } from '../../lib/index.js'
import { SeededRandom } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 1024 * 1024

async function makeDisk(t: ExecutionContext): Promise<DiskImage> {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size })
  const image = await openImage(path)
  t.teardown(() => image.close())
  return image
}

const content = Buffer.from(new SeededRandom(1).bytes(size))

test('what is streamed in comes out again, whole or in part', async (t) => {
  const image = await makeDisk(t)
  const pieces = [content.subarray(0, 1), content.subarray(1, 700_000), content.subarray(700_000)]
  const before = image.stats().syncsIssued
  await pipeline(Readable.from(pieces), image.createWriteStream())
  t.true(image.stats().syncsIssued > before, 'it is durable when it has finished')
  t.true((await buffer(image.createReadStream())).equals(content))
  const part = await buffer(image.createReadStream({ start: 1000, end: 600_000 }))
  t.true(part.equals(content.subarray(1000, 600_001)))
  t.is((await buffer(image.createReadStream({ start: size }))).length, 0)
})

test('a stream can begin anywhere, and text is bytes too', async (t) => {
  const image = await makeDisk(t)
  const stream = image.createWriteStream({ start: 65_530 })
  stream.write('häuser')
  stream.end()
  await finished(stream)
  const bytes = await image.read({ offset: 65_530, length: 7 })
  t.is(Buffer.from(bytes).toString(), 'häuser')
})

test('what does not fit is an error', async (t) => {
  const image = await makeDisk(t)
  await t.throwsAsync(
    pipeline(Readable.from([new Uint8Array(100)]), image.createWriteStream({ start: size - 50 })),
    {
      code: 'ERR_OUT_OF_RANGE',
    },
  )
  t.throws(() => image.createWriteStream({ start: size + 1 }), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => image.createReadStream({ end: size }), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => image.createReadStream({ start: 10, end: 8 }), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => image.createReadStream({ begin: 1 } as ReadStreamOptions), { code: 'ERR_INVALID_OPTION' })
})

test('a disk that is closed ends its streams with an error', async (t) => {
  const image = await makeDisk(t)
  const reading = image.createReadStream()
  const writing = image.createWriteStream()
  await image.close()
  await t.throwsAsync(buffer(reading), { code: 'ERR_CLOSED' })
  await t.throwsAsync(pipeline(Readable.from([content]), writing), { code: 'ERR_CLOSED' })
})
