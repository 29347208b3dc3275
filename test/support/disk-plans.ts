import fc from 'fast-check'
import { DiskModel, type Request } from './disk-model.js'
import { checkContents, type Disk, type DiskOptions, imageBytes, openDisk, source } from './qcow2-disk.js'
import { SeededRandom } from './seeded-random.js'

/** What an image is made of and opened with. Sizes are in sectors of 512 bytes. */
export type Setting = {
  readonly version: 2 | 3
  readonly refcountBits: number
  readonly extendedL2: boolean
  readonly sectors: number
  readonly backingSectors: number | undefined
  readonly syncPolicy: 'never' | 'flush' | 'write'
  readonly tinyCaches: boolean
  readonly tinyQueue: boolean
  /** Of the order in which the simulated disk ends what it does. */
  readonly diskSeed: number
}

/** Places are thousandths of the disk, so that they fit whatever size it has by then. */
export type Step =
  | { readonly kind: 'together'; readonly requests: readonly PlannedRequest[] }
  | { readonly kind: 'resize'; readonly sectors: number; readonly during: readonly PlannedRequest[] }
  | { readonly kind: 'reopen' }

type PlannedRequest = {
  readonly kind: Request['kind']
  readonly place: number
  readonly clusters: number
  readonly fineness: 'cluster' | 'sector' | 'byte'
  readonly toEnd: boolean
  readonly unmap: boolean
  readonly contentSeed: number
}

/** A disk that holds several L2 tables where that is possible, and is small enough to be read again and again. */
const mostSectors: Record<number, number> = {
  512: 1200,
  4096: 1600,
  16384: 3000,
  65536: 6000,
  2097152: 20000,
}

export function settings(clusterSize: number): fc.Arbitrary<Setting> {
  const most = mostSectors[clusterSize] ?? 1000
  return fc
    .record({
      version: fc.constantFrom<2 | 3>(3, 3, 3, 2),
      refcountBits: fc.constantFrom(1, 2, 4, 8, 16, 32, 64),
      extendedL2: fc.constant(false),
      sectors: fc.integer({ min: 1, max: most }),
      backingSectors: fc.option(fc.integer({ min: 1, max: most }), { nil: undefined }),
      syncPolicy: fc.constantFrom<Setting['syncPolicy']>('flush', 'flush', 'never', 'write'),
      tinyCaches: fc.boolean(),
      tinyQueue: fc.boolean(),
      diskSeed: fc.integer({ min: 0, max: 2 ** 30 }),
    })
    .map((setting) => (setting.version === 2 ? { ...setting, refcountBits: 16 } : setting))
}

/** The same with extended L2 entries. */
export function extendedSettings(clusterSize: number): fc.Arbitrary<Setting> {
  return settings(clusterSize).map((setting) => ({ ...setting, version: 3, extendedL2: true }))
}

const requests: fc.Arbitrary<PlannedRequest> = fc.record({
  kind: fc.constantFrom<Request['kind']>('write', 'write', 'write', 'zero', 'discard', 'read', 'flush'),
  place: fc.integer({ min: 0, max: 999 }),
  clusters: fc.double({ min: 0, max: 6, noNaN: true }),
  fineness: fc.constantFrom<PlannedRequest['fineness']>('cluster', 'sector', 'byte'),
  toEnd: fc.boolean(),
  unmap: fc.boolean(),
  contentSeed: fc.integer({ min: 0, max: 2 ** 30 }),
})

export function steps(clusterSize: number): fc.Arbitrary<readonly Step[]> {
  const most = mostSectors[clusterSize] ?? 1000
  const together = (minLength: number, maxLength: number): fc.Arbitrary<Step> =>
    fc.record({
      kind: fc.constant('together' as const),
      requests: fc.array(requests, { minLength, maxLength }),
    })
  return fc.array(
    fc.oneof(
      { weight: 3, arbitrary: together(1, 1) },
      { weight: 6, arbitrary: together(2, 12) },
      {
        weight: 2,
        arbitrary: fc.record({
          kind: fc.constant('resize' as const),
          sectors: fc.integer({ min: 0, max: most }),
          during: fc.array(requests, { maxLength: 4 }),
        }),
      },
      { weight: 1, arbitrary: fc.constant<Step>({ kind: 'reopen' }) },
    ),
    { minLength: 1, maxLength: 12 },
  )
}

/** What is planned, on a disk of this size; undefined where there is no room for it. */
function place(planned: PlannedRequest, size: number, clusterSize: number): Request | undefined {
  if (planned.kind === 'flush') return { kind: 'flush' }
  const unit = { cluster: clusterSize, sector: 512, byte: 1 }[planned.fineness]
  const offset = Math.floor((size * planned.place) / 1000 / unit) * unit
  const wanted = Math.max(1, Math.ceil((planned.clusters * clusterSize) / unit)) * unit
  const room = size - offset
  // Large clusters are slow to copy: a few of them are enough.
  const length = planned.toEnd && room < 8 * clusterSize ? room : Math.min(wanted, room, 3 * 2 ** 20)
  if (length <= 0) return undefined
  switch (planned.kind) {
    case 'write':
      return { kind: 'write', offset, bytes: content(length, planned.contentSeed) }
    case 'zero':
      return { kind: 'zero', offset, length, unmap: planned.unmap }
    case 'discard':
    case 'read':
      return { kind: planned.kind, offset, length }
  }
}

/** Bytes that are no zeros, and differ between requests; a pattern of 4 KiB is enough to tell places apart. */
export function content(length: number, seedOfContent: number): Uint8Array {
  const bytes = new Uint8Array(length)
  const pattern = new SeededRandom(seedOfContent).bytes(Math.min(length, 4093))
  for (let at = 0; at < length; at += pattern.length) bytes.set(pattern.subarray(0, length - at), at)
  return bytes
}

export async function runSteps(
  clusterSize: number,
  setting: Setting,
  planned: readonly Step[],
): Promise<void> {
  const backing =
    setting.backingSectors === undefined ? undefined : content(setting.backingSectors * 512, setting.diskSeed)
  const size = setting.sectors * 512
  const contents = await imageBytes({
    size,
    clusterSize,
    version: setting.version,
    refcountBits: setting.refcountBits,
    extendedL2: setting.extendedL2,
  })
  const options: DiskOptions = {
    syncPolicy: setting.syncPolicy,
    backing: backing && source(backing),
    ...(setting.tinyCaches ? { l2CacheBytes: 0, refcountCacheBytes: 0 } : {}),
    memory: {
      seed: setting.diskSeed,
      ...(setting.tinyQueue ? { queueBytes: 8192, queueNodes: 4 } : {}),
    },
  }
  const shown = new Uint8Array(size)
  if (backing !== undefined) shown.set(backing.subarray(0, size))
  const model = new DiskModel(shown, {
    clusterSize,
    version: setting.version,
    backingSize: backing?.length ?? 0,
  })
  const disk = await openDisk(contents, options)
  for (const step of planned) await runStep(disk, model, step, clusterSize)
  await model.mustEqual(disk, 'at the end')
  await closeAndCheck(disk)
  Object.assign(disk, await openDisk(disk.memory.contents, options))
  await model.mustEqual(disk, 'opened again')
  await disk.image.close()
}

export async function runStep(disk: Disk, model: DiskModel, step: Step, clusterSize: number): Promise<void> {
  switch (step.kind) {
    case 'together': {
      const placed = step.requests.flatMap((request) => place(request, model.size, clusterSize) ?? [])
      await model.runTogether(disk, placed)
      return
    }
    case 'resize': {
      const to = step.sectors * 512
      // What lies within both sizes; the end of the disk, which a discard looks at, is not the same before and after.
      const smaller = Math.min(to, model.size)
      const during = step.during
        .flatMap((request) => place(request, smaller, clusterSize) ?? [])
        .filter((request) => request.kind !== 'discard')
      const resizing = disk.image.resize(to, { shrink: true })
      const running = during.map((request) => runUnchecked(disk, request))
      await Promise.all([resizing, ...running])
      model.resize(to)
      // Once more in turn: then it is known what they come to.
      await model.runTogether(disk, during)
      return
    }
    case 'reopen':
      await closeAndCheck(disk)
      Object.assign(disk, await openDisk(disk.memory.contents, disk.options))
      await model.mustEqual(disk, 'opened again')
  }
}

async function runUnchecked(disk: Disk, request: Request): Promise<void> {
  if (request.kind === 'write') await disk.image.write(request.bytes, request.offset)
  else if (request.kind === 'zero') await disk.image.writeZeroes(request.offset, request.length, request)
  else if (request.kind === 'read') await disk.image.read(new Uint8Array(request.length), request.offset)
}

export async function closeAndCheck(disk: Disk): Promise<void> {
  await disk.image.close()
  if (disk.backend.admitted !== 0)
    throw new Error(`${disk.backend.admitted} bytes of room were not given back`)
  const result = await checkContents(disk.memory.contents)
  if (result.corruptions + result.leaks + result.checkErrors > 0) {
    throw new Error(`the image is not clean: ${result.findings.map(({ text }) => text).join('; ')}`)
  }
}
