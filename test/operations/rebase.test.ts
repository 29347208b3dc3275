import { copyFile, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  checkImage,
  createImage,
  flattenImage,
  imageInfo,
  openImage,
  type Progress,
  rebaseImage,
} from '../../lib/index.js'
import { mayMount, mountSmall } from '../support/mounts.js'
import { qemuCheck, qemuImg, qemuIo, qemuRead } from '../support/qemu.js'
import { SeededRandom } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

const MiB = 1024 * 1024
const size = 8 * MiB

type Chain = { readonly path: (name: string) => string }

/** Two bases that differ in every second MiB, and an overlay of the first. */
async function makeChain(t: ExecutionContext, at?: string): Promise<Chain> {
  const folder = at ?? (await makeFolder(t, { fast: true }))
  const path = (name: string): string => join(folder, name)
  for (const [index, name] of ['old', 'new'].entries()) {
    await createImage(path(name), { size })
    const base = await openImage(path(name))
    for (let start = 0; start < size; start += MiB) {
      const value = (start / MiB) % 2 === 0 ? 7 : 8 + index
      // Of the second only what differs takes space.
      if (index === 0 || at === undefined) await base.write(new Uint8Array(MiB / 2).fill(value), start)
    }
    await base.close()
  }
  await createImage(path('top'), { size, backingFile: 'old', backingFormat: 'qcow2' })
  const top = await openImage(path('top'))
  await top.write(Uint8Array.of(1, 2, 3), MiB + 5)
  await top.close()
  return { path }
}

async function readAll(path: string): Promise<Buffer> {
  const image = await openImage(path, { readOnly: true })
  try {
    return Buffer.from(await image.read({ offset: 0, length: image.size }))
  } finally {
    await image.close()
  }
}

const onNew = { backingFile: 'new', backingFormat: 'qcow2' } as const

test('what differs is copied, and the header names the new backing file', async (t) => {
  const { path } = await makeChain(t)
  const content = await readAll(path('top'))
  const steps: Progress[] = []
  const { bytesWritten } = await rebaseImage(path('top'), {
    ...onNew,
    onProgress: (step) => steps.push(step),
  })
  t.is(bytesWritten, 2 * MiB - 65536)
  t.deepEqual(steps.at(-1), { phase: 'rebase', bytesDone: size, bytesTotal: size })
  t.like(await imageInfo(path('top')), onNew)
  t.true((await readAll(path('top'))).equals(content))
  t.deepEqual(await rebaseImage(path('top'), onNew), { bytesWritten: 0 })
})

test('an image that is flattened stands alone', async (t) => {
  const { path } = await makeChain(t)
  const content = await readAll(path('top'))
  t.deepEqual(await flattenImage(path('top')), { bytesWritten: 4 * MiB - 65536 })
  const info = await imageInfo(path('top'))
  t.deepEqual([info.backingFile, info.backingFormat], [undefined, undefined])
  t.true((await readAll(path('top'))).equals(content))
  t.is(await qemuCheck(path('top')), '')
  // And what stands alone can be put on a file that would show through.
  await rebaseImage(path('top'), onNew)
  t.true((await readAll(path('top'))).equals(content))
  await createImage(path('alone'), { size: 2 * size })
  await rebaseImage(path('alone'), onNew)
  t.true((await readAll(path('alone'))).every((byte) => byte === 0))
  t.is(await qemuCheck(path('alone')), '')
})

type Mapped = { readonly length: number; readonly depth: number; readonly data: boolean }

/** What an image has itself. */
async function ownBytes(path: string): Promise<number> {
  const runs = JSON.parse(await qemuImg('map', '--output=json', path)) as Mapped[]
  return runs.reduce((sum, { length, depth, data }) => sum + (depth === 0 && data ? length : 0), 0)
}

for (const clusterSize of [16384, 65536, 2 * MiB]) {
  const seed = 4000 + clusterSize
  test(`with subclusters no more is copied than by the stock tool: clusters of ${clusterSize} bytes, seed ${seed}`, async (t) => {
    const random = new SeededRandom(seed)
    const folder = await makeFolder(t, { fast: true })
    const path = (name: string): string => join(folder, name)
    const writes = (count: number, below: number): string[] =>
      Array.from({ length: count }, () => {
        const length = 512 * random.between(1, 40)
        const offset = 512 * random.integer((below - length) / 512)
        return `write ${random.pick(['-P 5', '-P 6', '-z'])} ${offset} ${length}`
      })
    const alike = writes(60, 4 * MiB)
    await qemuImg('create', '-q', '-f', 'qcow2', path('old'), String(4 * MiB))
    await qemuIo(path('old'), [...alike, ...writes(25, 4 * MiB)])
    await qemuImg('create', '-q', '-f', 'qcow2', path('new'), String(size))
    await qemuIo(path('new'), [...alike, ...writes(25, size)])
    const options = `extended_l2=on,cluster_size=${clusterSize}`
    const top = ['-b', 'old', '-F', 'qcow2', path('ours'), String(size - 1536)]
    await qemuImg('create', '-q', '-f', 'qcow2', '-o', options, ...top)
    await qemuIo(path('ours'), writes(40, size - 1536))
    await copyFile(path('ours'), path('theirs'))
    const before = await qemuRead(path('ours'))
    await rebaseImage(path('ours'), onNew)
    await qemuImg('rebase', '-b', 'new', '-F', 'qcow2', path('theirs'))
    t.true((await qemuRead(path('ours'))).equals(before))
    t.true((await readAll(path('ours'))).equals(before))
    t.is(await qemuCheck(path('ours')), '')
    const [ours, theirs] = [await ownBytes(path('ours')), await ownBytes(path('theirs'))]
    t.true(ours <= theirs, `${ours} bytes by us, ${theirs} by the stock tool`)
    const [file, theirFile] = [await stat(path('ours')), await stat(path('theirs'))]
    t.true(file.size <= theirFile.size, `${file.size} bytes long, ${theirFile.size} by the stock tool`)
  })
}

test('unsafe changes the header alone, and opens nothing', async (t) => {
  const { path } = await makeChain(t)
  const length = (await readFile(path('top'))).length
  for (const backingFile of ['nothing/there', 'n'.repeat(1000), 'json:{}', 'm'.repeat(1023), null]) {
    const backingFormat = backingFile === null ? {} : ({ backingFormat: 'raw' } as const)
    await rebaseImage(path('top'), { backingFile, ...backingFormat, unsafe: true })
    t.is((await imageInfo(path('top'))).backingFile, backingFile ?? undefined)
    t.like(await checkImage(path('top')), { corruptions: 0, leaks: 0 })
  }
  t.is((await readFile(path('top'))).length, length)
})

test('misuse, and what cannot be', async (t) => {
  const { path } = await makeChain(t)
  const before = await readFile(path('top'))
  const refused = async (options: object, expected: object): Promise<void> => {
    await t.throwsAsync(rebaseImage(path('top'), options as never), expected)
  }
  await refused({}, { code: 'ERR_INVALID_OPTION', message: /null is for none/ })
  await refused({ backingFile: 'new' }, { code: 'ERR_INVALID_OPTION', message: /needs "backingFormat"/ })
  await refused({ backingFile: '', backingFormat: 'raw' }, { code: 'ERR_INVALID_OPTION' })
  await refused({ backingFile: 'new', backingFormat: 'vmdk' }, { code: 'ERR_INVALID_OPTION' })
  await refused({ backingFile: 'nbd:x:y', backingFormat: 'raw' }, { code: 'ERR_BACKING_DENIED' })
  await refused(
    { backingFile: 'missing', backingFormat: 'raw' },
    { code: 'ERR_NOT_FOUND', message: /new backing file 'missing'/ },
  )
  await refused({ backingFile: 'top', backingFormat: 'qcow2' }, { code: 'ERR_IMAGE_LOCKED' })
  await refused({ backingFile: 'top', backingFormat: 'qcow2', locking: 'off' }, { code: 'ERR_BACKING_LOOP' })
  await refused(
    { backingFile: 'z'.repeat(1024), backingFormat: 'raw', unsafe: true },
    { code: 'ERR_NOT_SUPPORTED' },
  )
  await refused({ ...onNew, backing: 'deny' }, { code: 'ERR_BACKING_DENIED' })
  t.true((await readFile(path('top'))).equals(before))
  await createImage(path('raw'), { size, format: 'raw' })
  await t.throwsAsync(rebaseImage(path('raw'), { ...onNew, format: 'raw' }), { code: 'ERR_NOT_SUPPORTED' })
})

test('an abort at any time leaves the image as it was', async (t) => {
  const { path } = await makeChain(t)
  const content = await readAll(path('top'))
  for (const point of [0, 1, 3, 5]) {
    const controller = new AbortController()
    let steps = 0
    const onProgress = (): void => {
      if (steps++ === point) controller.abort(new Error('enough'))
    }
    const options = { signal: controller.signal, onProgress }
    await t.throwsAsync(rebaseImage(path('top'), { ...onNew, ...options }), { message: 'enough' })
    t.is((await imageInfo(path('top'))).backingFile, 'old')
    t.is(await qemuCheck(path('top')), '')
    t.true((await readAll(path('top'))).equals(content))
  }
  await rebaseImage(path('top'), onNew)
  t.true((await readAll(path('top'))).equals(content))
})

const testMounted = mayMount() ? test.serial : test.serial.skip

testMounted('on a full disk the image stays sound, on its old backing file', async (t) => {
  const { folder, remount } = await mountSmall(t, 'tmpfs', 7)
  const { path } = await makeChain(t, folder)
  const content = await readAll(path('top'))
  await t.throwsAsync(flattenImage(path('top')), { code: 'ERR_NO_SPACE' })
  t.is((await imageInfo(path('top'))).backingFile, 'old')
  t.is(await qemuCheck(path('top')), '')
  t.true((await readAll(path('top'))).equals(content))
  remount('size=20m')
  await flattenImage(path('top'))
  t.true((await readAll(path('top'))).equals(content))
})
