import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { checkImage, createImage, type Finding, openImage, type Progress } from '../../lib/index.js'
import { qemuCheck, run } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

/** An image of two clusters with data, whose refcount block says something else. */
async function makeDamaged(
  path: string,
  refcounts: readonly (readonly [cluster: number, refcount: number])[],
): Promise<void> {
  await createImage(path, { size: 1024 * 1024 })
  const image = await openImage(path)
  await image.write(new Uint8Array(100_000).fill(1), 0)
  await image.close()
  const bytes = await readFile(path)
  for (const [cluster, refcount] of refcounts) bytes.writeUInt16BE(refcount, 2 * 65536 + cluster * 2)
  await writeFile(path, bytes)
}

test('a sound image is clean, and nothing is written to it', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await makeDamaged(path, [])
  const before = await readFile(path)
  const result = await checkImage(path)
  t.like(result, {
    supported: true,
    corruptions: 0,
    leaks: 0,
    checkErrors: 0,
    allocatedClusters: 2,
    totalClusters: 16,
  })
  t.true((await readFile(path)).equals(before))
})

test('leaks and corruptions are told as they are found, and repaired as far as was asked for', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await makeDamaged(path, [
    [5, 0],
    [6, 2],
  ])
  const found: Finding[] = []
  const result = await checkImage(path, { onFinding: (finding) => found.push(finding) })
  const theirs = await run('qemu-img', ['check', '--output=json', path])
  const { corruptions, leaks } = JSON.parse(theirs.stdout) as { corruptions: number; leaks: number }
  t.like(result, { corruptions, leaks })
  t.true(found.some(({ text }) => text === 'ERROR cluster 5 refcount=0 reference=1'))
  t.true(found.some(({ text }) => text === 'Leaked cluster 6 refcount=2 reference=1'))
  t.like(await checkImage(path, { repair: 'all' }), { corruptions: 0, leaks: 0, leaksFixed: 1 })
  t.is(await qemuCheck(path), '')
})

test('a raw image has nothing to check', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size: 512, format: 'raw' })
  t.deepEqual(await checkImage(path), { supported: false, format: 'raw' })
})

test('an image in use is neither checked nor repaired', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size: 1024 * 1024 })
  const writer = await openImage(path)
  await t.throwsAsync(checkImage(path), { code: 'ERR_IMAGE_LOCKED' })
  t.like(await checkImage(path, { forceShare: true }), { corruptions: 0 })
  await writer.close()
  const reader = await openImage(path, { readOnly: true })
  await checkImage(path)
  await t.throwsAsync(checkImage(path, { repair: 'all' }), { code: 'ERR_IMAGE_LOCKED' })
  await t.throwsAsync(checkImage(path, { repair: 'all', forceShare: true }), { code: 'ERR_INVALID_OPTION' })
  await reader.close()
})

test('what is no image is told by name', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk')
  await writeFile(path, 'no image')
  await t.throwsAsync(checkImage(path, { format: 'qcow2' }), {
    code: 'ERR_NOT_AN_IMAGE',
    message: `Could not open '${path}': Image is not in qcow2 format`,
  })
  await t.throwsAsync(checkImage(join(folder, 'missing')), { code: 'ERR_NOT_FOUND' })
  await t.throwsAsync(checkImage(folder), { code: 'ERR_IS_A_DIRECTORY' })
  await t.throwsAsync(checkImage(path, { signal: AbortSignal.abort(new Error('enough')) }), {
    message: 'enough',
  })
})

test('progress is told in bytes, and every phase comes to its end', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  const size = 3 * 2 ** 29
  await createImage(path, { size })
  const last = new Map<string, Progress>()
  await checkImage(path, { onProgress: (progress) => void last.set(progress.phase, progress) })
  const { size: length } = await stat(path)
  t.deepEqual(
    [...last.values()],
    [
      { phase: 'references', bytesDone: size, bytesTotal: size },
      { phase: 'refcounts', bytesDone: length, bytesTotal: length },
      { phase: 'flags', bytesDone: size, bytesTotal: size },
    ],
  )
})
