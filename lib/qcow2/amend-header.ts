import { notSupported } from '../base/errors.js'
import type { BlockBackend } from '../queue/backend.js'
import { encodeFeatureNames, largestWithoutFeatureNames } from './create-header.js'
import type { Header } from './header.js'
import { findExtension } from './header-extensions.js'
import { type Form, formOf, planDataFile, planForm, withoutFeatureNames } from './header-strings.js'
import { readFirstCluster } from './open-metadata.js'
import { RepairOrdering } from './repair-ordering.js'
import { compatible, extensionTypes, headerLengthV3, headerV2, headerV3, incompatible } from './spec.js'

/**
 * Changes of what kind of image a header says that there is. Nothing else uses the image meanwhile: it is locked, and no `Qcow2Image` writes to it.
 * Each ends durable.
 */

/** Make a version 2 header one of version 3. All that version 2 has means the same there. @throws ERR_NOT_SUPPORTED  it does not fit */
export async function upgradeHeader(backend: BlockBackend): Promise<void> {
  const { header, firstCluster } = await readFirstCluster(backend)
  if (header.version === 3) return
  await new RepairOrdering(backend).rewriteHeader(planVersion(firstCluster, 3, backend.path))
}

/**
 * Make a version 3 header one of version 2. The caller has seen to it that no entry uses what only version 3 has: zero flags.
 * @throws ERR_NOT_SUPPORTED  the image has a feature that version 2 lacks, or the strings do not fit
 */
export async function downgradeHeader(backend: BlockBackend): Promise<void> {
  const { header, firstCluster } = await readFirstCluster(backend)
  if (header.version === 2) return
  refuseDowngrade(header, backend.path)
  await new RepairOrdering(backend).rewriteHeader(planVersion(firstCluster, 2, backend.path))
}

/** @throws ERR_NOT_SUPPORTED  something that the header tells of cannot be in version 2; the words are QEMU's where it refuses too */
export function refuseDowngrade(header: Header, path: string): void {
  const features = header.incompatibleFeatures & ~(incompatible.dirty | incompatible.compressionType)
  if ((features & incompatible.dataFile) !== 0n)
    throw notSupported('Cannot downgrade an image with a data file', { path })
  if (features !== 0n) {
    const set = `0x${features.toString(16)}`
    throw notSupported(`Cannot downgrade an image with incompatible features ${set} set`, { path })
  }
  if (header.refcountOrder !== 4) throw notSupported('compat=0.10 requires refcount_bits=16', { path })
  // QEMU lets them go, and leaks their clusters.
  if (findExtension(header.extensions, extensionTypes.bitmaps) !== undefined)
    throw notSupported('Cannot downgrade an image with persistent bitmaps: remove them first', { path })
}

/**
 * Give an image another data file, which holds what the present one does: the header's name alone. Or take back that the file is raw.
 * @throws as planDataFile
 */
export async function changeDataFile(
  backend: BlockBackend,
  change: Parameters<typeof planDataFile>[1],
): Promise<void> {
  const { firstCluster } = await readFirstCluster(backend)
  await new RepairOrdering(backend).rewriteHeader(planDataFile(firstCluster, change, backend.path))
}

/** Switch lazy refcounts on or off. No session runs, so that the image is not dirty. */
export async function setLazyRefcounts(backend: BlockBackend, isLazy: boolean): Promise<void> {
  const { header, firstCluster } = await readFirstCluster(backend)
  const others = header.compatibleFeatures & ~compatible.lazyRefcounts
  const features = isLazy ? others | compatible.lazyRefcounts : others
  await new RepairOrdering(backend).setCompatible(firstCluster, features)
}

/**
 * The same header in another version of the format, as QEMU lays it out, in one or more steps: see planBacking. Pure.
 * @param cluster  the whole first cluster; not changed
 */
export function planVersion(cluster: Uint8Array, version: 2 | 3, path: string): Uint8Array[] {
  const now = formOf(cluster, path)
  const hasRoom = cluster.length > largestWithoutFeatureNames
  const wanted: Form =
    version === 3
      ? { ...now, head: headOfVersion3(now.head), extensions: hasRoom ? named(now) : now.extensions }
      : { ...now, head: headOfVersion2(now.head), extensions: withoutFeatureNames(now.extensions) }
  return planForm(cluster, wanted, path)
}

function headOfVersion2(head: Uint8Array): Uint8Array {
  const fields = head.slice(0, headerV2.sizeBytes)
  headerV2.patch(fields, 0, { version: 2 })
  return fields
}

function headOfVersion3(head: Uint8Array): Uint8Array {
  const fields = new Uint8Array(headerLengthV3)
  fields.set(head)
  headerV2.patch(fields, 0, { version: 3 })
  headerV3.patch(fields, headerV2.sizeBytes, { refcountOrder: 4, headerLength: headerLengthV3 })
  return fields
}

/** With the feature names behind the backing file's format. */
function named(form: Form): Form['extensions'] {
  const others = withoutFeatureNames(form.extensions)
  const at = others.findIndex(({ type }) => type === extensionTypes.backingFormat) + 1
  const names = { type: extensionTypes.featureNames, data: encodeFeatureNames() }
  return [...others.slice(0, at), names, ...others.slice(at)]
}
