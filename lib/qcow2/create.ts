import { assert } from '../base/assert.js'
import { invalid, outOfRange } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import { sectorSize } from '../base/units.js'
import type { BlockBackend } from '../queue/backend.js'
import { encodeHeader } from './create-header.js'
import { type CreateLayout, layOut } from './create-layout.js'
import { clearDevice, publishImage } from './create-ordering.js'
import { entryBytes, type Geometry, l1EntriesFor, makeGeometry } from './geometry.js'
import { storeRefcount } from './refcount-entry.js'
import { limits } from './spec.js'

export type CreateOptions = {
  /** Guest bytes; rounded up to a multiple of 512. */
  readonly size: number
  /** Bytes, a power of two, 512 to 2 MiB. */
  readonly clusterSize: number
  /** 2 is compat 0.10, 3 is compat 1.1. */
  readonly version: 2 | 3
  /** 1, 2, 4, 8, 16, 32 or 64; 16 on version 2. */
  readonly refcountBits: number
  /** Version 3 only. */
  readonly lazyRefcounts: boolean
  /** Version 3 only, if not zlib. */
  readonly compressionType?: 'zlib' | 'zstd' | undefined
  /** Version 3 and clusters of at least 16 KiB only. */
  readonly extendedL2?: boolean | undefined
  /** Stored as it is. */
  readonly backingFile?: string | undefined
  readonly backingFormat?: string | undefined
  /** Stored as it is; version 3 only. The file is the caller's to make. */
  readonly dataFile?: string | undefined
  /** See DataFile.isRaw; then preallocate. */
  readonly dataFileRaw?: boolean
  /** A LUKS header with the material of its key slots, as newVolumeHeader makes it: the image is encrypted. */
  readonly luksHeader?: Uint8Array | undefined
}

/**
 * Check the options against each other and the limits of the format, before a file is touched.
 * @returns the sizes that follow
 * @throws ERR_INVALID_OPTION, ERR_OUT_OF_RANGE  naming the limit
 */
export function checkCreateOptions(options: CreateOptions): Geometry {
  const { clusterSize, refcountBits, version } = options
  const clusterBits = Math.log2(clusterSize)
  const { least, most } = limits.clusterBits
  if (!Number.isInteger(clusterBits) || clusterBits < least || clusterBits > most) {
    throw invalidOption(`Cluster size must be a power of two between 512 and 2048k, not ${clusterSize}`)
  }
  const refcountOrder = Math.log2(refcountBits)
  if (!Number.isInteger(refcountOrder) || refcountOrder < 0 || refcountOrder > limits.refcountOrder) {
    throw invalidOption(
      `Refcount width must be a power of two and may not exceed 64 bits, not ${refcountBits}`,
    )
  }
  if (version === 2) {
    const needed = 'compatibility level 1.1 or above (use version=v3 or greater)'
    if (options.dataFile !== undefined) {
      throw invalidOption(`External data files are only supported with ${needed}`)
    }
    if (refcountBits !== 16) throw invalidOption(`Different refcount widths than 16 bits require ${needed}`)
    if (options.lazyRefcounts) throw invalidOption(`Lazy refcounts only supported with ${needed}`)
    if ((options.compressionType ?? 'zlib') !== 'zlib') {
      throw invalidOption(`Non-zlib compression type is only supported with ${needed}`)
    }
  }
  if (options.extendedL2 === true) checkExtendedL2(options, clusterBits)
  if (options.backingFormat !== undefined && options.backingFile === undefined) {
    throw invalidOption('Backing format cannot be used without backing file')
  }
  if (options.backingFile?.includes('\0') || options.backingFormat?.includes('\0')) {
    throw invalidOption('Backing file name and format cannot contain NUL')
  }
  if (options.backingFile === '') throw invalidOption('Backing file name cannot be empty')
  checkDataFile(options)
  const geometry = makeGeometry(clusterBits, refcountOrder, options.extendedL2 ?? false)
  checkSize(geometry, options.size)
  // for its check of the names' lengths
  encodeHeader(newHeader(options, geometry, layOut(geometry, 0, options.luksHeader?.byteLength)))
  return geometry
}

function checkDataFile({ dataFile, dataFileRaw, backingFile }: CreateOptions): void {
  if (dataFileRaw === true && dataFile === undefined) throw invalidOption('data-file-raw requires data-file')
  if (dataFileRaw === true && backingFile !== undefined) {
    throw invalidOption('Backing file and data-file-raw cannot be used at the same time')
  }
  if (dataFile === '' || dataFile?.includes('\0')) {
    throw invalidOption('Data file name cannot be empty, nor contain NUL')
  }
}

function checkSize(geometry: Geometry, size: number): void {
  if (!Number.isSafeInteger(size) || size < 0 || size > Number.MAX_SAFE_INTEGER - sectorSize) {
    throw outOfRange(`Image size must be a whole number of bytes from 0 to 2^53 - 513, not ${size}`)
  }
  if (l1EntriesFor(geometry, size) <= limits.l1Entries) return
  const { least, most } = limits.clusterBits
  let enough: number = least
  const isEnough = (): boolean =>
    l1EntriesFor(makeGeometry(enough, 4, geometry.extendedL2), size) <= limits.l1Entries
  while (enough < most && !isEnough()) enough++
  const need = `${size} bytes need clusters of at least ${2 ** enough} bytes`
  throw outOfRange(
    `The image size is too large for file format 'qcow2' (try using a larger cluster size): ${need}`,
  )
}

function checkExtendedL2({ version }: CreateOptions, clusterBits: number): void {
  const only = 'Extended L2 entries are only supported with'
  if (version === 2)
    throw invalidOption(`${only} compatibility level 1.1 and above (use version=v3 or greater)`)
  if (clusterBits >= limits.extendedL2ClusterBits) return
  const least = 2 ** limits.extendedL2ClusterBits
  throw invalidOption(`${only} cluster sizes of at least ${least} bytes`)
}

function invalidOption(message: string): TypeError {
  return invalid(message, 'ERR_INVALID_OPTION')
}

function newHeader(
  options: CreateOptions,
  geometry: Geometry,
  layout: CreateLayout,
): Parameters<typeof encodeHeader>[0] {
  const { clusterBits, clusterSize, refcountOrder } = geometry
  return {
    version: options.version,
    size: alignUp(options.size, sectorSize),
    clusterBits,
    refcountOrder,
    lazyRefcounts: options.lazyRefcounts,
    compressionType: options.compressionType ?? 'zlib',
    extendedL2: geometry.extendedL2,
    l1Offset: layout.l1.cluster * clusterSize,
    l1Entries: layout.l1.entries,
    refcountTableOffset: layout.refcountTable.cluster * clusterSize,
    refcountTableClusters: layout.refcountTable.clusters,
    backingFile: options.backingFile,
    backingFormat: options.backingFormat,
    dataFile: options.dataFile,
    dataFileRaw: options.dataFileRaw ?? false,
    encryption: layout.encryption && {
      offset: layout.encryption.cluster * clusterSize,
      length: options.luksHeader?.byteLength ?? 0,
    },
  }
}

/**
 * Lay an empty image into an empty file, or over what a device holds, to the byte as `qemu-img create` does with preallocation=off. Durable when it
 * resolves; a crash before leaves a file that is no image yet.
 * @throws as checkCreateOptions; ERR_IO, ERR_NO_SPACE
 */
export async function createQcow2(backend: BlockBackend, options: CreateOptions): Promise<void> {
  const geometry = checkCreateOptions(options)
  assert(
    backend.length === 0 || backend.isDevice === true,
    'an image is laid into an empty file, or a device',
  )
  const layout = layOut(geometry, alignUp(options.size, sectorSize), options.luksHeader?.byteLength)
  const firstCluster = encodeHeader(newHeader(options, geometry, layout))
  const firstSector = firstCluster.slice(0, sectorSize)
  await publishImage(backend, firstSector, async () => {
    await backend.truncate(layout.fileBytes)
    if (backend.isDevice === true) await clearDevice(backend, alignUp(layout.fileBytes, geometry.clusterSize))
    await writeRefcounts(backend, geometry, layout)
    await writeEncryption(backend, geometry, layout, options.luksHeader)
    if (firstCluster.length > sectorSize) await backend.write(firstCluster.subarray(sectorSize), sectorSize)
  })
}

/** Before the header that points to it (E24). */
async function writeEncryption(
  backend: BlockBackend,
  { clusterSize }: Geometry,
  { encryption }: CreateLayout,
  luksHeader: Uint8Array | undefined,
): Promise<void> {
  if (encryption === undefined || luksHeader === undefined) return
  await backend.write(luksHeader, encryption.cluster * clusterSize)
}

async function writeRefcounts(
  backend: BlockBackend,
  geometry: Geometry,
  layout: CreateLayout,
): Promise<void> {
  const { clusterSize } = geometry
  const blocks = encodeBlocks(geometry, layout)
  for (const [index, block] of blocks) {
    const cluster = layout.blocks.get(index)
    assert(cluster !== undefined, 'every cluster in use is counted by a block')
    await backend.write(block, cluster * clusterSize)
  }
  const table = new Uint8Array(layout.refcountTable.clusters * clusterSize)
  const view = new DataView(table.buffer)
  for (const [index, cluster] of layout.blocks) {
    view.setBigUint64(index * entryBytes, BigInt(cluster * clusterSize))
  }
  await backend.write(table, layout.refcountTable.cluster * clusterSize)
  if (layout.outgrownTable !== undefined) {
    await backend.write(table.subarray(0, entryBytes), layout.outgrownTable * clusterSize)
  }
}

/** The refcount blocks that are not all zeros. */
function encodeBlocks(geometry: Geometry, layout: CreateLayout): Map<number, Uint8Array> {
  const blocks = new Map<number, Uint8Array>()
  for (const [first, count] of layout.used) {
    for (let cluster = first; cluster < first + count; cluster++) {
      const index = Math.floor(cluster / geometry.refcountsPerBlock)
      let block = blocks.get(index)
      if (block === undefined) {
        block = new Uint8Array(geometry.clusterSize)
        blocks.set(index, block)
      }
      storeRefcount(new DataView(block.buffer), cluster % geometry.refcountsPerBlock, geometry, 1)
    }
  }
  return blocks
}
