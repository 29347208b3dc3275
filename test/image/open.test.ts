import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { createImage, type ImageEvent, openImage, type OpenOptions } from '../../lib/index.js'
import { createQcow2 } from '../../lib/qcow2/create.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { makeFolder } from '../support/temp-folder.js'

test('the format is probed, or as the caller says', async (t) => {
  const folder = await makeFolder(t)
  const qcow2 = join(folder, 'a.qcow2')
  const raw = join(folder, 'a.raw')
  await createImage(qcow2, { size: 65536 })
  await writeFile(raw, new Uint8Array(1000))
  for (const [path, options, format, size] of [
    [qcow2, {}, 'qcow2', 65536],
    [qcow2, { format: 'qcow2' }, 'qcow2', 65536],
    [qcow2, { format: 'raw' }, 'raw', 196616 + 504],
    [raw, {}, 'raw', 1024],
  ] as const) {
    const image = await openImage(path, { ...options, readOnly: true })
    t.deepEqual([image.format, image.size, image.readOnly, image.path], [format, size, true, path])
    await image.close()
  }
  await t.throwsAsync(openImage(raw, { format: 'qcow2' }), {
    code: 'ERR_NOT_AN_IMAGE',
    message: `Could not open '${raw}': Image is not in qcow2 format`,
  })
})

test('options are checked before anything is opened', async (t) => {
  const path = '/nowhere/disk.qcow2'
  const cases: [object, string, RegExp][] = [
    [
      { readonly: true },
      'ERR_INVALID_OPTION',
      /openImage: unknown option "readonly"; did you mean "readOnly"\?/,
    ],
    [{ format: 'vmdk' }, 'ERR_INVALID_OPTION', /"format" must be one of/],
    [{ cache: 'fast' }, 'ERR_INVALID_OPTION', /"cache" must be one of/],
    [{ forceShare: true }, 'ERR_INVALID_OPTION', /forceShare needs readOnly/],
    [{ backing: 7 }, 'ERR_INVALID_OPTION', /"backing" must be one of/],
    [{ onError: 'retry' }, 'ERR_INVALID_OPTION', /"onError" must be one of/],
  ]
  for (const [options, code, message] of cases) {
    await t.throwsAsync(openImage(path, options as OpenOptions), { code, message })
  }
  await t.throwsAsync(openImage(7 as unknown as string), { code: 'ERR_INVALID_OPTION', message: /the path/ })
})

test('opening can be aborted, and leaves nothing open', async (t) => {
  const path = join(await makeFolder(t), 'a.qcow2')
  await createImage(path, { size: 65536 })
  await t.throwsAsync(openImage(path, { signal: AbortSignal.abort(new Error('enough')) }), {
    message: 'enough',
  })
  const controller = new AbortController()
  const opening = openImage(path, { signal: controller.signal })
  controller.abort(new Error('enough'))
  await t.throwsAsync(opening, { message: 'enough' })
  await (await openImage(path)).close()
})

test('an image can live in memory', async (t) => {
  const backend = new MemoryBackend({ path: 'memory' })
  await backend.truncate(4096)
  const image = await openImage(backend, { format: 'raw' })
  await image.write(Uint8Array.of(1), 4095)
  t.is(image.path, 'memory')
  t.is((await image.read({ offset: 4095, length: 1 }))[0], 1)
  await image.close()
})

test('each cache mode opens, writes and reads', async (t) => {
  const path = join(await makeFolder(t), 'a.qcow2')
  await createImage(path, { size: 1024 * 1024 })
  for (const cache of [
    'writeback',
    'none',
    'writethrough',
    'directsync',
    'unsafe',
    'unsafe-direct',
  ] as const) {
    const image = await openImage(path, { cache })
    t.is(image.direct, ['none', 'directsync', 'unsafe-direct'].includes(cache))
    await image.write(new Uint8Array(70_000).fill(cache.length), 1001)
    t.is((await image.read({ offset: 71_000, length: 1 }))[0], cache.length)
    await image.close()
  }
})

test('the owner hears of a file that can no longer be believed before anybody flushes', async (t) => {
  let failing = false
  const backend = new MemoryBackend({ idleMs: 1, fault: ({ kind }) => (kind === 'sync' && failing ? 5 : 0) })
  await createQcow2(backend, {
    size: 65536,
    clusterSize: 4096,
    version: 3,
    refcountBits: 16,
    lazyRefcounts: false,
  })
  const events: ImageEvent[] = []
  let tell: (() => void) | undefined
  const told = new Promise<void>((resolve) => (tell = resolve))
  const image = await openImage(backend, {
    onEvent: (event) => {
      events.push(event)
      tell?.()
    },
  })
  failing = true
  await image.write(new Uint8Array(1000), 0)
  await told
  t.like(events[0], { type: 'poisoned', stopped: false })
  t.is(events[0]?.error.code, 'ERR_POISONED')
  await t.throwsAsync(image.flush(), { code: 'ERR_POISONED' })
  await image.close().catch(() => undefined)
  t.is(events.length, 1)
})

test('what is neither a path nor a file is refused as such', async (t) => {
  for (const source of [{}, [], null, 5, new Uint8Array(3), new Date()]) {
    await t.throwsAsync(openImage(source as unknown as string), {
      instanceOf: TypeError,
      code: 'ERR_INVALID_OPTION',
    })
  }
})

test('a read of more than one array holds is refused as such', async (t) => {
  const contents = new MemoryBackend()
  await createQcow2(contents, {
    size: 2 ** 50,
    clusterSize: 2 ** 21,
    version: 3,
    refcountBits: 16,
    lazyRefcounts: false,
  })
  const image = await openImage(contents)
  await t.throwsAsync(image.read({ offset: 0, length: 2 ** 50 }), {
    instanceOf: RangeError,
    code: 'ERR_OUT_OF_RANGE',
    message: /in pieces/,
  })
  await image.close()
})
