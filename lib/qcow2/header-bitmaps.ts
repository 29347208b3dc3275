import { alignDown } from '../base/integers.js'
import { sectorSize } from '../base/units.js'
import { parseHeader, patchHeader } from './header.js'
import { type Extension, findExtension } from './header-extensions.js'
import { formOf, planForm } from './header-strings.js'
import { autoclear, bitmapsExtension, extensionHeader, extensionTypes } from './spec.js'

/** What the header says of the bitmaps. */
export type BitmapPointer = {
  readonly count: number
  readonly directoryBytes: number
  readonly directoryOffset: number
}

/**
 * Make a header name another bitmap directory, or none, in one or more steps: first clusters to be written one after the other. A crash between
 * them, or within one, leaves the old directory named, or the new one. Pure: nothing is written here.
 *
 * Where the extension is there already and its data lies within one sector, that sector is all that differs.
 * @param cluster  the whole first cluster; not changed
 * @throws ERR_NOT_SUPPORTED  the header has no room for the extension
 */
export function planBitmaps(
  cluster: Uint8Array,
  pointer: BitmapPointer | undefined,
  path: string,
): Uint8Array[] {
  const { extensions, autoclearFeatures } = parseHeader(cluster, path)
  const found = findExtension(extensions, extensionTypes.bitmaps)
  const base = cluster.slice()
  const bit = pointer === undefined ? 0n : autoclear.bitmaps
  const features = (autoclearFeatures & ~autoclear.bitmaps) | bit
  if (features !== autoclearFeatures) patchHeader(base, { autoclearFeatures: features })
  if (pointer === undefined) {
    // The bit alone says that there are none, in one sector. What is left of the extension means nothing then, and goes if it can go safely.
    const steps = features === autoclearFeatures ? [] : [base]
    if (found === undefined) return steps
    const others = extensions.filter(({ type }) => type !== extensionTypes.bitmaps)
    try {
      return [...steps, ...withExtensions(base, others, features, path)]
    } catch {
      return steps
    }
  }
  const data = bitmapsExtension.encode({ ...pointer, reserved: 0 })
  if (found !== undefined && found.data.length === data.length) {
    const at = found.offset + extensionHeader.sizeBytes
    const withData = (first: Uint8Array): Uint8Array => {
      const patched = first.slice()
      patched.set(data, at)
      return patched
    }
    // Without its bit the extension means nothing yet: it may be written in any way.
    if (features !== autoclearFeatures) return [withData(cluster), withData(base)]
    const isOneSector = alignDown(at, sectorSize) === alignDown(at + data.length - 1, sectorSize)
    if (isOneSector) return [withData(base)]
  }
  const entry = { type: extensionTypes.bitmaps, data }
  const wanted =
    found === undefined
      ? [...extensions, entry]
      : extensions.map((extension) => (extension === found ? entry : extension))
  return withExtensions(cluster, wanted, features, path)
}

function withExtensions(
  cluster: Uint8Array,
  extensions: readonly Pick<Extension, 'type' | 'data'>[],
  autoclearFeatures: bigint,
  path: string,
): Uint8Array[] {
  const now = formOf(cluster, path)
  const head = now.head.slice()
  patchHeader(head, { autoclearFeatures })
  return planForm(cluster, { ...now, head, extensions }, path)
}
