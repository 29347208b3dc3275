import { Qcow2Error } from '../base/errors.js'
import type { BlockBackend } from '../queue/backend.js'
import { makeGeometry } from './geometry.js'
import { inspectBitmaps } from './inspect-bitmaps.js'
import { type HeaderNumbers, inspectHeader } from './inspect-header.js'
import { inspectLuks } from './inspect-luks.js'
import { inspectSnapshots } from './inspect-snapshots.js'
import { type ImageStructure, reasonOf } from './inspect-structure.js'
import { inspectL1, inspectRefcounts } from './inspect-tables.js'
import { type InspectOptions, Inspection } from './inspection.js'
import { limits, magic } from './spec.js'

/**
 * Where everything of an image's metadata stands, and what it says. Nothing is written, and nothing that the image names is opened. What is damaged says so,
 * and does not keep the rest from being read. Memory: one cluster and a megabyte, and what is listed.
 * @returns the parts of the image, in the order in which the header names them
 * @throws ERR_NOT_AN_IMAGE  it does not begin as a qcow2 image
 * @throws ERR_IO            the first cluster cannot be read; the signal's reason
 */
export async function inspectQcow2(
  backend: BlockBackend,
  options: InspectOptions,
): Promise<readonly ImageStructure[]> {
  const inspection = new Inspection(backend, options)
  const first = await inspection.read(0, 2 ** limits.clusterBits.most)
  if (first.length < 4 || Buffer.from(first.buffer).readUInt32BE(0) !== magic) {
    const where = { path: backend.path, offset: 0, structure: 'header' }
    throw new Qcow2Error('ERR_NOT_AN_IMAGE', 'Image is not in qcow2 format', where)
  }
  const { parts, numbers } = inspectHeader(first, backend.path)
  return numbers === undefined ? parts : [...parts, ...(await inspectTables(inspection, numbers))]
}

async function inspectTables(inspection: Inspection, header: HeaderNumbers): Promise<ImageStructure[]> {
  const { version, clusterBits, refcountOrder, extendedL2, hasDataFile } = header
  const isNarrow = extendedL2 && clusterBits < limits.extendedL2ClusterBits
  const geometry = makeGeometry(clusterBits, Math.min(refcountOrder, limits.refcountOrder), extendedL2)
  const l2Rules = { version, clusterBits, extendedL2, hasDataFile }
  const active = {
    offset: header.l1Offset,
    entries: header.l1Entries,
    // Clusters that are too small for it have no subclusters.
    ...(isNarrow ? {} : { l2Rules }),
  }
  const tables: [string, () => Promise<ImageStructure | undefined>][] = [
    ['refcount table', () => inspectRefcounts(inspection, geometry, header)],
    ['L1 table', () => inspectL1(inspection, geometry, active)],
    ['snapshot table', () => inspectSnapshots(inspection, geometry, header)],
    ['bitmap directory', () => inspectBitmaps(inspection, geometry, header)],
    ['LUKS header', () => inspectLuks(inspection, geometry, header)],
  ]
  const found: ImageStructure[] = []
  for (const [structure, inspect] of tables) {
    try {
      const part = await inspect()
      if (part !== undefined) found.push(part)
    } catch (error) {
      // A disk that cannot be read there.
      found.push({ structure, problem: reasonOf(error) })
    }
  }
  return found
}
