import { realpath, unlink } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { type Checked, booleanOption, enumOption, powerOfTwoOption, stringOption } from '../base/options.js'
import { invalid } from '../base/errors.js'
import type { Encryption } from '../qcow2/encryption.js'
import { Qcow2Image } from '../qcow2/image.js'
import { checkCreateOptions, createQcow2 } from '../qcow2/create.js'
import { writeTarget } from './atomic-target.js'
import { type Encrypting, encryptOption, type EncryptOptions } from './encrypt-option.js'
import { type NewEncryption, withNewEncryption } from './new-encryption.js'
import { type CacheSettings, defaultCache } from './cache-modes.js'
import { type Layers, openQcow2Layer } from './chain.js'
import { identifyFile, openFile } from './image-file.js'
import { keepFile } from './kept-file.js'
import type { Layer } from './layers.js'
import { takeLocks } from './locks.js'
import { openSuited } from './open-suited.js'
import { nameSeenFrom } from './path-names.js'

export type OverlayOptions = {
  /** Replace a file that exists. */
  readonly overwrite?: boolean
  /** Bytes, a power of two from 512 to 2 MiB. Default 65536. */
  readonly clusterSize?: number
  /** Default '1.1'. */
  readonly compat?: '1.1' | '0.10'
  /** 1, 2, 4, ... 64; default 16. */
  readonly refcountBits?: number
  readonly lazyRefcounts?: boolean
  /** The name by which the new image refers to this one; default: its path as seen from the new image's folder. */
  readonly backingFile?: string
  /** The new image is encrypted. Must be given on an encrypted disk; false: what is written from now on is not. */
  readonly encrypt?: EncryptOptions | false
}

export const overlaySchema = {
  overwrite: booleanOption,
  clusterSize: powerOfTwoOption({ min: 512, max: 2 * 1024 * 1024 }),
  compat: enumOption(['1.1', '0.10']),
  refcountBits: powerOfTwoOption({ min: 1, max: 64 }),
  lazyRefcounts: booleanOption,
  backingFile: stringOption,
  encrypt: (value: unknown, name: string): Encrypting | false =>
    value === false ? false : encryptOption(value, name),
}

/** How the disk that gets an overlay was opened: the overlay is opened alike. */
export type Opening = { readonly cache: CacheSettings; readonly locking: boolean }

/** A new image, open, on top of the layers of a disk that is still written to. */
export type NewTop = {
  readonly layer: Layer
  /** Nobody wants it: close it, and remove its file or put back the one that it has replaced. */
  readonly abandon: () => Promise<void>
  /** It has its place: what it has replaced is gone for good. */
  readonly keep: () => Promise<void>
}

/**
 * Create an empty overlay of a disk, durable under its name, and open it for writing. Nothing is read through it yet.
 * @throws as createImage
 */
export async function makeOverlay(
  path: string,
  layers: Layers,
  given: Checked<typeof overlaySchema>,
  opening: Opening,
): Promise<NewTop> {
  const { encrypt } = given
  if (
    encrypt === undefined &&
    layers.some(({ format }) => format instanceof Qcow2Image && format.isEncrypted)
  ) {
    const what = 'createOverlay: the disk is encrypted: option "encrypt" must say how the new image is'
    throw invalid(`${what}, or be false`, 'ERR_INVALID_OPTION')
  }
  return withNewEncryption(encrypt === false ? undefined : encrypt, path, (made) =>
    makeTop(path, layers, given, { ...opening, made }),
  )
}

async function makeTop(
  path: string,
  layers: Layers,
  given: Checked<typeof overlaySchema>,
  { cache, locking, made }: Opening & { readonly made: NewEncryption | undefined },
): Promise<NewTop> {
  const { format, backend } = layers[0]
  const shape = {
    size: format.size,
    clusterSize: given.clusterSize ?? 65536,
    version: given.compat === '0.10' ? 2 : 3,
    refcountBits: given.refcountBits ?? 16,
    lazyRefcounts: given.lazyRefcounts ?? false,
    backingFile: given.backingFile ?? (await nameFrom(path, backend.path)),
    // Named, so that nobody ever has to guess what a guest may have written.
    backingFormat: format.format,
    luksHeader: made?.luksHeader,
  } as const
  checkCreateOptions(shape)
  const overwrite = given.overwrite === true
  if (overwrite) await refuseOwnFile(path, layers)
  const replaced = overwrite ? await keepFile(path) : undefined
  try {
    await writeTarget(path, { overwrite, locking, signal: undefined }, async (temporary) => {
      const empty = await openFile(temporary, { readOnly: false, cache: defaultCache })
      try {
        await createQcow2(empty, shape)
      } finally {
        await empty.close()
      }
    })
  } catch (error) {
    await replaced?.putBack().catch(() => undefined)
    throw error
  }
  const undo = async (): Promise<void> => {
    await (replaced === undefined ? unlink(path) : replaced.putBack()).catch(() => undefined)
  }
  try {
    const layer = await openTop(path, layers, { cache, locking, encryption: made?.encryption })
    const abandon = async (): Promise<void> => {
      await layer.format.close().catch(() => undefined)
      await undo()
    }
    return { layer, abandon, keep: async () => replaced?.letGo() }
  } catch (error) {
    await undo()
    throw error
  }
}

/** Locks prevent it as a rule; but they may be off, or the file system may have none. @throws TypeError ERR_INVALID_OPTION */
async function refuseOwnFile(path: string, layers: Layers): Promise<void> {
  const target = await identifyFile(path).catch(() => undefined)
  const own = layers.flatMap(({ identity, dataFile }) => [identity, dataFile?.identity])
  if (target !== undefined && own.includes(target))
    throw invalid('createOverlay: a file of the disk itself cannot be replaced', 'ERR_INVALID_OPTION')
}

async function openTop(
  path: string,
  below: Layers,
  { cache, locking, encryption }: Opening & { readonly encryption: Encryption | undefined },
): Promise<Layer> {
  const backend = await openSuited(path, { readOnly: false, cache })
  try {
    if (locking) takeLocks(backend, 'qcow2 read-write')
    const settings = { readOnly: false, cache, signal: undefined, snapshot: undefined, encryption }
    const format = await openQcow2Layer(backend, below, settings)
    return { format, backend, identity: await identifyFile(path) }
  } catch (error) {
    await backend.close().catch(() => undefined)
    throw error
  }
}

/** How an image in one place names one in another: alone if they are neighbours. */
async function nameFrom(path: string, backing: string): Promise<string> {
  const folder = await realpath(dirname(resolve(path))).catch(() => dirname(resolve(path)))
  return nameSeenFrom(folder, await realpath(backing))
}
