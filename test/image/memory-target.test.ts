import test from 'ava'
import { writeMemoryTarget } from '../../lib/image/memory-target.js'
import { createImage, MemoryFile, openImage } from '../../lib/index.js'

const options = { overwrite: false, locking: true, signal: undefined }
const filled = async (file: MemoryFile): Promise<void> => {
  const backend = file.openBackend({ readOnly: false, syncPolicy: 'never' })
  await backend.write(Uint8Array.of(5), 0)
  await backend.close()
}

test('what fails or is aborted leaves what was there', async (t) => {
  const file = MemoryFile.from(Uint8Array.of(1))
  await t.throwsAsync(writeMemoryTarget(file, options, filled), { code: 'ERR_EXISTS' })
  const failing = writeMemoryTarget(file, { ...options, overwrite: true }, async (temporary) => {
    await filled(temporary)
    throw new Error('no')
  })
  await t.throwsAsync(failing, { message: 'no' })
  t.deepEqual([...file.bytes()], [1])
  const abort = new AbortController()
  const aborted = writeMemoryTarget(
    file,
    { ...options, overwrite: true, signal: abort.signal },
    async (temporary) => {
      await filled(temporary)
      abort.abort(new Error('enough'))
    },
  )
  await t.throwsAsync(aborted, { message: 'enough' })
  t.deepEqual([...file.bytes()], [1])
  await writeMemoryTarget(file, { ...options, overwrite: true }, filled)
  t.deepEqual([...file.bytes()], [5])
})

test('of two that make one at a time the later one is refused', async (t) => {
  const file = new MemoryFile()
  const both = (locking: boolean): Promise<void> =>
    writeMemoryTarget(file, { ...options, locking }, async (temporary) => {
      await writeMemoryTarget(file, { ...options, locking }, filled)
      await filled(temporary)
    })
  await t.throwsAsync(both(true), { code: 'ERR_IMAGE_LOCKED' })
  t.is(file.length, 0)
  await t.throwsAsync(both(false), { code: 'ERR_EXISTS' })
  t.deepEqual([...file.bytes()], [5])
})

test('a file in use is not replaced', async (t) => {
  const file = new MemoryFile()
  await createImage(file, { size: 65536 })
  const before = file.bytes()
  const image = await openImage(file)
  await t.throwsAsync(createImage(file, { size: 512, overwrite: true }), { code: 'ERR_IMAGE_LOCKED' })
  await image.close()
  t.deepEqual(file.bytes(), before)
  await createImage(file, { size: 512, overwrite: true })
  t.notDeepEqual(file.bytes(), before)
})
