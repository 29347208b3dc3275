import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import type { SyncPolicy } from '../../lib/queue/backend.js'
import type { BackingSource } from '../../lib/queue/format-image.js'
import { MemoryBackend, type MemoryBackendOptions } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { type CheckResult, checkQcow2 } from '../../lib/qcow2/check.js'
import { type CreateOptions, createQcow2 } from '../../lib/qcow2/create.js'
import { hasDataFile } from '../../lib/qcow2/data-file.js'
import { assemble, type OpenQcow2Options, Qcow2Image } from '../../lib/qcow2/image.js'
import { EncryptedData } from '../../lib/qcow2/encrypted-data.js'
import type { SectorCipher } from '../../lib/luks/sector-cipher.js'
import { openMetadata, readHeader } from '../../lib/qcow2/open-metadata.js'
import type { Parts } from '../../lib/qcow2/parts.js'
import type { ReservationPreallocation } from '../../lib/qcow2/reservation.js'
import { qemuCheck, qemuIo, run } from './qemu.js'
import { StagedBackend } from './staged-backend.js'
import { makeFolder } from './temp-folder.js'

/** An image in memory, open, with what stands behind it. `reopen` puts new things in their places. */
export type Disk = {
  memory: MemoryBackend
  backend: StagedBackend
  parts: Parts
  image: Qcow2Image
  /** Of an image that has one. */
  data: MemoryBackend | undefined
  options: DiskOptions
}

export type DiskOptions = {
  readonly syncPolicy?: SyncPolicy
  readonly backing?: BackingSource | undefined
  /** Bytes; below 16 slices it is 16 slices. */
  readonly l2CacheBytes?: number
  readonly refcountCacheBytes?: number
  /** Clusters; default none, so that each test says what it is about. */
  readonly reservation?: number
  readonly preallocation?: ReservationPreallocation
  /** What the data file holds, of an image that has one. */
  readonly dataContents?: SparseBytes | undefined
  /** Of the backend of the open image, and of its data file. */
  readonly memory?: MemoryBackendOptions
  /** The guest's bytes are encrypted by this; the header says nothing of it. */
  readonly cipher?: SectorCipher | undefined
}

/** Few words for what most tests do not care about. */
export type NewImage = Partial<CreateOptions> & Pick<CreateOptions, 'size' | 'clusterSize'>

export function fill(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value)
}

/** A backing file that is these bytes. */
export function source(bytes: Uint8Array): BackingSource {
  return {
    size: bytes.length,
    async read(into, offset) {
      if (offset + into.length > bytes.length) throw new Error('a read past the end of the backing file')
      into.set(bytes.subarray(offset, offset + into.length))
    },
  }
}

export function newBackend(options: MemoryBackendOptions = {}): StagedBackend {
  return new StagedBackend(new MemoryBackend(options))
}

/** The bytes of a new, empty image. */
export async function imageBytes(create: NewImage): Promise<SparseBytes> {
  const memory = new MemoryBackend()
  await createQcow2(memory, {
    version: 3,
    refcountBits: 16,
    lazyRefcounts: false,
    ...create,
  })
  await memory.close()
  return memory.contents
}

/** A new image. A backing file is passed by the options alone: the header names none, so that stock tools can check it. */
export async function newDisk(create: NewImage, options: DiskOptions = {}): Promise<Disk> {
  return await openDisk(await imageBytes(create), options)
}

/** As `newDisk`, of which only the parts are looked at. */
export const newParts = newDisk

export async function openDisk(contents: SparseBytes, options: DiskOptions = {}): Promise<Disk> {
  const memory = new MemoryBackend({ contents, syncPolicy: options.syncPolicy ?? 'flush', ...options.memory })
  const backend = new StagedBackend(memory)
  const { header } = await readHeader(memory)
  const data = hasDataFile(header) ? newData(options) : undefined
  const opening: OpenQcow2Options = {
    readOnly: false,
    dataFile: data,
    reservation: options.reservation ?? 0,
    preallocation: options.preallocation ?? 'falloc',
    ...(options.backing === undefined ? {} : { backing: options.backing }),
    ...(options.l2CacheBytes === undefined ? {} : { l2CacheBytes: options.l2CacheBytes }),
    ...(options.refcountCacheBytes === undefined ? {} : { refcountCacheBytes: options.refcountCacheBytes }),
  }
  // As openQcow2 does it, but for keeping the parts.
  const metadata = await openMetadata(backend, { readOnly: false, repairing: false })
  const encrypted = options.cipher && new EncryptedData(data ?? backend, options.cipher, 'host')
  const parts = assemble(backend, metadata, opening, encrypted)
  backend.log.length = 0
  return { memory, backend, parts, data, image: new Qcow2Image(parts, metadata, opening), options }
}

function newData(options: DiskOptions): MemoryBackend {
  const { dataContents: contents, syncPolicy = 'flush', memory } = options
  return new MemoryBackend({ ...memory, path: 'data', syncPolicy, contents: contents ?? new SparseBytes() })
}

/** Close the image and open it again, in place. */
export async function reopen(disk: Disk, options: DiskOptions = disk.options): Promise<void> {
  await disk.image.close()
  const { data, memory } = disk
  Object.assign(disk, await openDisk(memory.contents, { ...options, dataContents: data?.contents }))
}

export async function readDisk(disk: Disk, offset: number, length: number): Promise<Uint8Array> {
  // What is not filled in shows.
  const bytes = fill(length, 0xee)
  await disk.image.read(bytes, offset)
  return bytes
}

export function readAll(disk: Disk): Promise<Uint8Array> {
  return readDisk(disk, 0, disk.image.size)
}

/** Check an image that is not open. */
export async function checkContents(contents: SparseBytes): Promise<CheckResult> {
  return await checkQcow2(new MemoryBackend({ contents, readOnly: true }))
}

/** Close the image; it must be without corruptions and without leaks, and everything taken be given back. */
export async function checkedClean(t: ExecutionContext, disk: Disk): Promise<void> {
  await disk.image.close()
  t.is(disk.backend.admitted, 0, 'room in the queue is given back')
  const result = await checkContents(disk.memory.contents)
  const findings = result.findings.map(({ text }) => text).join('\n')
  t.deepEqual([result.corruptions, result.leaks, result.checkErrors], [0, 0, 0], findings)
}

/** As `checkedClean`, and the stock tool must agree. */
export async function checkedByQemu(t: ExecutionContext, disk: Disk): Promise<void> {
  await checkedClean(t, disk)
  const path = join(await makeFolder(t), 'disk.qcow2')
  await writeFile(path, disk.memory.snapshot())
  t.is(await qemuCheck(path), '')
}

/** The image's file as it is now must be without corruptions; leaks are let pass. */
export async function checkedSound(t: ExecutionContext, contents: SparseBytes): Promise<CheckResult> {
  const result = await checkContents(contents)
  t.deepEqual([result.corruptions, result.checkErrors], [0, 0], JSON.stringify(result.findings))
  return result
}

/** An image that the stock tools have made, in memory. The file is called disk.qcow2. */
export async function diskByQemu(
  t: ExecutionContext,
  make: {
    /** Arguments of `qemu-img create -f qcow2`. */
    readonly create: readonly string[]
    /** Commands of qemu-io on disk.qcow2. */
    readonly io?: readonly string[]
    /** Further commands of qemu-img. */
    readonly then?: readonly (readonly string[])[]
  },
  options: DiskOptions = {},
): Promise<Disk> {
  const folder = await makeFolder(t)
  const inFolder = (argument: string): string =>
    argument.endsWith('.qcow2') || argument.endsWith('.raw') ? join(folder, argument) : argument
  const tool = async (args: readonly string[]): Promise<void> => {
    const { code, stdout, stderr } = await run('qemu-img', args.map(inFolder))
    if (code !== 0) throw new Error(`qemu-img ${args.join(' ')}: ${stdout}${stderr}`)
  }
  await tool(['create', '-q', '-f', 'qcow2', ...make.create])
  if (make.io !== undefined) await qemuIo(join(folder, 'disk.qcow2'), make.io, ['-f', 'qcow2'])
  for (const args of make.then ?? []) await tool(args)
  return await openDisk(SparseBytes.from(await readFile(join(folder, 'disk.qcow2'))), options)
}

/** Whether something ends without what is held back. Lets everything else run as far as it can. */
export async function isDone(work: Promise<unknown>): Promise<boolean> {
  let done = false
  const note = (): void => {
    done = true
  }
  void work.then(note, note)
  await settle()
  return done
}

/** Lets everything run that waits for nothing. Turns of the event loop, not time. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve))
}
