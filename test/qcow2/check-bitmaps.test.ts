import { join } from 'node:path'
import test from 'ava'
import { countBitmaps } from '../../lib/qcow2/check-bitmaps.js'
import { checkStateOf } from '../support/check-state-of.js'
import { sampleImage } from '../support/image-bytes.js'
import { qemuCheck } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

/** An image with a bitmap; where its directory is, read by literal offsets. */
async function withBitmap(t: Parameters<typeof makeFolder>[0]) {
  const folder = await makeFolder(t, { fast: true })
  const image = await sampleImage(folder, { clusterSize: 65536, bitmap: true })
  const at = image.indexOf(Buffer.from('2385287500000018', 'hex'))
  const directory = Number(image.readBigUInt64BE(at + 24))
  return { image, directory, extension: at, file: join(folder, 'sample.qcow2') }
}

test('directory, table and data of a bitmap are counted', async (t) => {
  const { image, directory, file } = await withBitmap(t)
  t.is(await qemuCheck(file), '')
  const { state, texts } = await checkStateOf(image)
  await countBitmaps(state)
  const table = Number(image.readBigUInt64BE(directory))
  const clusters = [...state.counts.counted(0, 1000)]
  t.true(clusters.includes(directory / 65536))
  t.true(clusters.includes(table / 65536))
  t.deepEqual(texts, [])
})

test('bitmaps whose autoclear bit is gone refer to nothing', async (t) => {
  const { image } = await withBitmap(t)
  image[95] = 0
  const { state } = await checkStateOf(image)
  await countBitmaps(state)
  t.deepEqual([...state.counts.counted(0, 1000)], [])
})

test('a directory that ends early, or a table too long, leaves the check incomplete', async (t) => {
  const short = await withBitmap(t)
  short.image.writeUInt32BE(2, short.extension + 8)
  const first = await checkStateOf(short.image)
  await countBitmaps(first.state)
  t.is(first.state.result.checkErrors, 1)

  const long = await withBitmap(t)
  long.image.writeUInt32BE(0xffffffff, long.directory + 8)
  const second = await checkStateOf(long.image)
  await countBitmaps(second.state)
  t.is(second.state.result.checkErrors, 1)
})

test('a table entry that cannot be is told', async (t) => {
  const { image, directory } = await withBitmap(t)
  image.writeBigUInt64BE(1n << 60n, Number(image.readBigUInt64BE(directory)))
  const { state, texts } = await checkStateOf(image)
  await countBitmaps(state)
  t.deepEqual(texts, ['ERROR bitmap table entry 0 is not valid'])
})
