import { alignUp } from '../base/integers.js'
import { parseLuksHeader } from '../luks/header.js'
import {
  headerBytes,
  headerFields,
  limits,
  luksSector,
  slotCount,
  slotFields,
  slotOffset,
} from '../luks/spec.js'
import { cryptMethods } from './encryption.js'
import type { Geometry } from './geometry.js'
import { findExtension } from './header-extensions.js'
import type { HeaderNumbers } from './inspect-header.js'
import { fieldsOf, type ImageStructure, numbersOf, problemOf, reasonOf } from './inspect-structure.js'
import { placeOf } from './inspect-tables.js'
import { keySlotWords, luksWords } from './inspect-words.js'
import type { Inspection } from './inspection.js'
import { encryptionExtension, extensionTypes } from './spec.js'

/** The LUKS header and where the material of its slots stands. Digests, salts and the material are named, and their bytes are not shown. */
export async function inspectLuks(
  inspection: Inspection,
  geometry: Geometry,
  header: HeaderNumbers,
): Promise<ImageStructure | undefined> {
  const extension = findExtension(header.extensions, extensionTypes.encryptionHeader)
  const structure = 'LUKS header'
  if (extension === undefined) {
    if (header.cryptMethod !== cryptMethods.luks) return undefined
    return { structure, problem: 'no header extension says where it is' }
  }
  const { data } = extension
  if (data.length !== encryptionExtension.sizeBytes) {
    const problem = `the extension has ${data.length} bytes, not ${encryptionExtension.sizeBytes}`
    return { structure, problem }
  }
  const { offset, length } = numbersOf(encryptionExtension, data, 0)
  const place = placeOf(structure, offset, Number(length))
  if (length < headerBytes || length > limits.payloadOffset) {
    return { ...place, problem: `a LUKS header of ${length} bytes` }
  }
  const { problem, isReadable } = inspection.placeProblem(offset, headerBytes, geometry)
  if (!isReadable || typeof offset !== 'number') return { ...place, ...problemOf(problem) }
  const bytes = await inspection.read(offset, headerBytes)
  const wrong = wrongWith(bytes, { path: inspection.backend.path, offset, areaBytes: Number(length) })
  const slots = Array.from({ length: slotCount }, (_, slot) => inspectSlot(bytes, slot, offset))
  const fields = fieldsOf('LUKS field', headerFields, luksWords, bytes, 0, offset)
  const parts = [...fields, ...slots.flatMap((slot) => slot ?? [])]
  return { ...place, parts, ...problemOf(problem, wrong) }
}

function wrongWith(bytes: Uint8Array, place: Parameters<typeof parseLuksHeader>[1]): string | undefined {
  if (bytes.length < headerBytes) return undefined
  try {
    parseLuksHeader(bytes, place)
    return undefined
  } catch (error) {
    return reasonOf(error)
  }
}

/** @param start  of the LUKS header in the file */
function inspectSlot(bytes: Uint8Array, slot: number, start: number): ImageStructure | undefined {
  const at = slotOffset(slot)
  if (at + slotFields.sizeBytes > bytes.length) return undefined
  const keyBytes = Number(numbersOf(headerFields, bytes, 0).keyBytes)
  const { materialSector, stripes } = numbersOf(slotFields, bytes, at)
  const material = placeOf(
    'key material',
    start + Number(materialSector) * luksSector,
    alignUp(keyBytes * Number(stripes), luksSector),
  )
  return {
    structure: 'key slot',
    index: slot,
    offset: start + at,
    length: slotFields.sizeBytes,
    parts: [...fieldsOf('key slot field', slotFields, keySlotWords, bytes, at, start + at), material],
  }
}
