import { corrupt, unsupported } from '../base/errors.js'
import { type LuksHeader, parseLuksHeader } from '../luks/header.js'
import type { LockedVolume } from '../luks/key-slots.js'
import { headerBytes, limits as luksLimits } from '../luks/spec.js'
import type { BlockBackend } from '../queue/backend.js'
import type { Header } from './header.js'
import { findExtension, headerError } from './header-extensions.js'
import { encryptionExtension, extensionHeader, extensionTypes } from './spec.js'

/** Where an image's LUKS header and the material of its key slots stand. Bytes. */
export type EncryptionArea = { readonly offset: number; readonly length: number }

/** @returns undefined where there is no such area: the image is not encrypted, or by the legacy AES */
export function encryptionArea({ extensions }: Pick<Header, 'extensions'>): EncryptionArea | undefined {
  const extension = findExtension(extensions, extensionTypes.encryptionHeader)
  if (extension === undefined) return undefined
  return encryptionExtension.decode(extension.data, 0, extension.offset + extensionHeader.sizeBytes)
}

/** A LUKS header of an image, as read from its file. */
export type FoundLuks = { readonly area: EncryptionArea; readonly header: LuksHeader }

/**
 * @throws ERR_CORRUPT              there is no area, it cannot be where it is said to be, or a header that none can be
 * @throws ERR_UNSUPPORTED_FEATURE  as parseLuksHeader
 */
export async function readEncryptionHeader(backend: BlockBackend, header: Header): Promise<FoundLuks> {
  const { path } = backend
  const area = encryptionArea(header)
  if (area === undefined) throw headerError(path, 0, 'No header extension says where the LUKS header is')
  const { offset, length } = area
  if (length < headerBytes || length > luksLimits.payloadOffset) {
    throw corrupt('full disk encryption header pointer', offset, `a LUKS header of ${length} bytes`)
  }
  if (offset < 2 ** header.clusterBits || offset + headerBytes > backend.length) {
    throw corrupt('full disk encryption header pointer', offset, 'the LUKS header is not within the file')
  }
  const bytes = new Uint8Array(headerBytes)
  await backend.read(bytes, offset)
  return { area, header: parseLuksHeader(bytes, { path, offset, areaBytes: length }) }
}

/** The volume as it is looked at by whoever has a passphrase. @param maxIterations see luks/spec.ts, limits */
export function lockedVolume(
  backend: BlockBackend,
  { area, header }: FoundLuks,
  maxIterations: number = luksLimits.iterations,
): LockedVolume {
  const read = async (offset: number, length: number): Promise<Uint8Array> => {
    if (offset + length > area.length) throw unsupported('Key material outside of the header')
    const bytes = new Uint8Array(length)
    await backend.read(bytes, area.offset + offset)
    return bytes
  }
  return { header, read, maxIterations, path: backend.path }
}
