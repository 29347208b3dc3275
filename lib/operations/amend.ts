import { type LongWork, ProgressReporter } from '../base/abort.js'
import { invalid, notSupported, outOfRange } from '../base/errors.js'
import {
  booleanOption,
  checkOptions,
  checkPath,
  enumOption,
  integerOption,
  powerOfTwoOption,
} from '../base/options.js'
import { sectorSize } from '../base/units.js'
import { type Layers, openQcow2Layer } from '../image/chain.js'
import { type DataFileGate, dataFileOption } from '../image/data-file-gate.js'
import { DiskImage } from '../image/disk-image.js'
import type { Layer } from '../image/layers.js'
import {
  changeDataFile,
  downgradeHeader,
  refuseDowngrade,
  setLazyRefcounts,
  upgradeHeader,
} from '../qcow2/amend-header.js'
import { changeRefcountWidth } from '../qcow2/amend-refcounts.js'
import { expandZeros, hasCompressed } from '../qcow2/amend-tables.js'
import { hasDataFile } from '../qcow2/data-file.js'
import type { Header } from '../qcow2/header.js'
import { planDataFile } from '../qcow2/header-strings.js'
import { Qcow2Image } from '../qcow2/image.js'
import { readFirstCluster } from '../qcow2/open-metadata.js'
import { stepsOf } from '../qcow2/snapshot-work.js'
import { autoclear, compatible } from '../qcow2/spec.js'
import type { BlockBackend } from '../queue/backend.js'
import { amendEncryption, type AmendEncryption, amendEncryptionOption } from './amend-encryption.js'
import {
  type ChainWork,
  type ChainWorkOptions,
  chainWorkOf,
  chainWorkSchema,
  openForWork,
} from './chain-work.js'
import { refuseOwnData } from './data-file-target.js'

export type AmendOptions = Omit<ChainWorkOptions, 'dataFile'> & {
  /** Whether the image's external data file may be opened. Default 'deny'. */
  readonly openDataFile?: DataFileGate
  /** '1.1' is version 3 of the format, '0.10' version 2. */
  readonly compat?: '1.1' | '0.10'
  readonly lazyRefcounts?: boolean
  /** 1, 2, 4, ... 64. */
  readonly refcountBits?: number
  /** Guest bytes, whole sectors of 512; less than now cuts off data. 0: as it is. */
  readonly size?: number
  /** What the image has already: another one takes rebaseImage. Both or none. */
  readonly backingFile?: string
  readonly backingFormat?: string
  /**
   * Of images that have an external data file: its name from now on, as for createImage; the file is the caller's to move or copy, and need not be
   * there yet. Empty: none, whoever opens the image has to tell.
   */
  readonly dataFile?: string
  /** Only false is a change: the data file is no longer to be read as the disk itself. */
  readonly dataFileRaw?: boolean
  /** Another passphrase, or one less. */
  readonly encrypt?: AmendEncryption
}

const text = (value: unknown, name: string): string => {
  if (typeof value === 'string') return value
  throw new TypeError(`${name} must be a string`)
}

const amendSchema = {
  ...chainWorkSchema,
  compat: enumOption(['1.1', '0.10']),
  lazyRefcounts: booleanOption,
  refcountBits: powerOfTwoOption({ min: 1, max: 64 }),
  size: integerOption({ min: 0 }),
  backingFile: text,
  backingFormat: text,
  openDataFile: dataFileOption,
  dataFile: text,
  dataFileRaw: booleanOption,
  encrypt: amendEncryptionOption,
}

/** What the image is in. */
type Files = Pick<Layer, 'backend' | 'dataFile'>

/** What is to be, all choices made. */
export type Wanted = Pick<
  AmendOptions,
  'encrypt' | 'backingFile' | 'backingFormat' | 'dataFile' | 'dataFileRaw'
> & {
  readonly version: 2 | 3 | undefined
  readonly refcountBits: number | undefined
  readonly lazyRefcounts: boolean | undefined
  /** Guest bytes. */
  readonly size: number | undefined
}

/**
 * Change what kind of image an image is; the guest sees no difference but the size. What cannot be is refused before anything is changed. If this fails
 * later or is aborted, the image is whole, and has become in parts what was asked for.
 * @throws ERR_NOT_SUPPORTED  what the image, or the version asked for, cannot have; a raw image
 * @throws RangeError ERR_OUT_OF_RANGE  a size that is not of whole sectors
 * @throws ERR_CORRUPT        the image is damaged
 * @throws as openImage; ERR_NO_SPACE, ERR_IO; the signal's reason
 */
export async function amendImage(path: string, options: AmendOptions): Promise<void> {
  checkPath('amendImage', path)
  const given = checkOptions('amendImage', options, amendSchema)
  const work = chainWorkOf({ ...given, dataFile: given.openDataFile })
  const { backingFile, backingFormat, dataFile, dataFileRaw, encrypt } = given
  const wanted: Wanted = {
    ...(encrypt === undefined ? {} : { encrypt }),
    ...(backingFile === undefined ? {} : { backingFile }),
    ...(backingFormat === undefined ? {} : { backingFormat }),
    ...(dataFile === undefined ? {} : { dataFile }),
    ...(dataFileRaw === undefined ? {} : { dataFileRaw }),
    version: given.compat === undefined ? undefined : given.compat === '1.1' ? 3 : 2,
    refcountBits: given.refcountBits,
    lazyRefcounts: given.lazyRefcounts,
    size: given.size === 0 ? undefined : given.size,
  }
  if (dataFile !== undefined && dataFile !== '') await refuseOwnData('amendImage', path, dataFile)
  const disk = await openForWork(path, work)
  try {
    const [top, first, ...others] = DiskImage.layersOf(disk)
    const { format } = top
    const below: Layers | undefined = first && [first, ...others]
    if (!(format instanceof Qcow2Image)) {
      throw notSupported("Format driver 'raw' does not support option amendment", { path })
    }
    await amendLayer(format, top, below, wanted, work)
  } finally {
    await disk.close()
  }
}

/**
 * As `amendImage`, over what is open.
 * @param image  left as after a close, but for its file
 * @param below  the image's backing chain
 */
export async function amendLayer(
  image: Qcow2Image,
  files: Files,
  below: Layers | undefined,
  wanted: Wanted,
  work: ChainWork,
): Promise<void> {
  const { backend } = files
  const { header, firstCluster } = await readFirstCluster(backend)
  refuse(header, wanted, backend.path)
  const ofDataFile = dataFileChange(header, wanted)
  if (ofDataFile !== undefined) planDataFile(firstCluster, ofDataFile, backend.path)
  const isDowngrade = header.version === 3 && wanted.version === 2
  if (isDowngrade) await refuseZstd(backend, header)
  const done = new ProgressReporter(work.onProgress, 'amend', 1)
  if (wanted.encrypt !== undefined) await amendEncryption(backend, header, work.encryption, wanted.encrypt)
  // Nothing but the file is of this session from here on: what is written to it now, nobody has in memory.
  await image.freeze()
  if (wanted.version === 3) await upgradeHeader(backend)
  if (wanted.refcountBits !== undefined)
    await changeRefcountWidth(backend, Math.log2(wanted.refcountBits), work)
  const isLazy = (header.compatibleFeatures & compatible.lazyRefcounts) !== 0n
  const toBeLazy = isDowngrade ? false : (wanted.lazyRefcounts ?? isLazy)
  if (toBeLazy !== isLazy) await setLazyRefcounts(backend, toBeLazy)
  if (wanted.size !== undefined || isDowngrade)
    await changeDisk(files, below, { ...wanted, isDowngrade }, work)
  if (isDowngrade) await downgradeHeader(backend)
  if (ofDataFile !== undefined) await changeDataFile(backend, ofDataFile)
  done.advance(1)
}

/** @returns what is to be said of the data file, if that is something else */
function dataFileChange(
  header: Header,
  { dataFile, dataFileRaw }: Wanted,
): { name: string | undefined; isRaw: boolean } | undefined {
  const isRaw = isSaidRaw(header) && dataFileRaw !== false
  const isSame = dataFile === undefined || dataFile === (header.dataFile ?? '')
  if (isSame && isRaw === isSaidRaw(header)) return undefined
  return { name: isSame ? undefined : dataFile, isRaw }
}

const isSaidRaw = ({ autoclearFeatures }: Header): boolean =>
  (autoclearFeatures & autoclear.dataFileRaw) !== 0n

/** What takes the tables: over the same file, in a session of its own. */
async function changeDisk(
  { backend, dataFile }: Files,
  below: Layers | undefined,
  { size, isDowngrade }: { size: number | undefined; isDowngrade: boolean },
  work: ChainWork,
): Promise<void> {
  const settings = { readOnly: false, cache: work.cache, signal: work.signal, snapshot: undefined }
  const { encryption } = work
  const image = await openQcow2Layer(backend, below, { ...settings, encryption }, dataFile)
  try {
    if (size !== undefined) await image.resize(size, { shrink: true })
    if (!isDowngrade) return
    await refuseSnapshots(image, backend.path)
    const control: LongWork = { signal: work.signal, onProgress: work.onProgress }
    await image.reorganise((parts, snapshots) => expandZeros(parts, snapshots, stepsOf(control)('zeros')))
  } finally {
    await image.freeze()
  }
}

/** @throws what QEMU 7.2 refuses, in its words */
function refuse(header: Header, wanted: Wanted, path: string): void {
  const version = wanted.version ?? header.version
  const bits = wanted.refcountBits ?? 2 ** header.refcountOrder
  const about = { path, structure: 'header' }
  if (version === 2 && wanted.refcountBits !== undefined && bits !== 16) {
    throw notSupported(
      'Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)',
      about,
    )
  }
  const isLazy = (header.compatibleFeatures & compatible.lazyRefcounts) !== 0n
  if (version === 2 && wanted.lazyRefcounts === true && !isLazy) {
    throw notSupported(
      'Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)',
      about,
    )
  }
  const { backingFile, backingFormat } = wanted
  const isBackingGiven = backingFile !== undefined || backingFormat !== undefined
  const isSame = backingFile === header.backingFile && backingFormat === header.backingFormat
  if (isBackingGiven && !isSame) throw notSupported('Cannot amend the backing file', about)
  if (wanted.dataFile !== undefined && !hasDataFile(header))
    throw notSupported('data-file can only be set for images that use an external data file', about)
  if (wanted.dataFile?.includes('\0') === true)
    throw invalid('amendImage: a data file name cannot contain NUL', 'ERR_INVALID_OPTION')
  if (wanted.dataFileRaw === true && !isSaidRaw(header))
    throw notSupported('data-file-raw cannot be set on existing images', about)
  if (wanted.size !== undefined && wanted.size % sectorSize !== 0)
    throw outOfRange(`The new size must be a multiple of ${sectorSize}`)
  if (wanted.version === 2 && header.version === 3)
    refuseDowngrade({ ...header, refcountOrder: Math.log2(bits) }, path)
}

/** Version 2 has no other compression than zlib. */
async function refuseZstd(backend: BlockBackend, header: Header): Promise<void> {
  if (header.compressionType !== 'zstd' || !(await hasCompressed(backend, header))) return
  throw notSupported(
    'Cannot downgrade an image with zstd compression type and existing compressed clusters',
    { path: backend.path },
  )
}

/** Version 2 has snapshots of its disk as it is, and small VM states. */
async function refuseSnapshots(image: Qcow2Image, path: string): Promise<void> {
  const mostVmState = 0xffffffff
  for (const { vmStateSize, diskSize } of await image.snapshots.list()) {
    if (vmStateSize <= mostVmState && (diskSize === undefined || Number(diskSize) === image.size)) continue
    throw notSupported('Internal snapshots prevent downgrade of image', { path })
  }
}
