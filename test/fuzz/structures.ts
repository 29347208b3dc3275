import { extensionHeader, headerV2, headerV3, snapshotEntry } from '../../lib/qcow2/spec.js'

/** A number in the file, and what it is part of. */
export type Place = { readonly what: string; readonly offset: number; readonly width: 1 | 2 | 4 | 8 }

/** Bits 9 to 55: the host offset in an L1 or L2 entry. */
const offsetMask = 0x00ff_ffff_ffff_fe00n

/** Most entries of one kind that are told apart: small images have no more that matter. */
const mostEntries = 4096

/**
 * Where the numbers of an image's metadata stand. The image is sound, or was: what points nowhere is left out.
 * @returns by the structure that they are part of
 */
export function structuresOf(image: Buffer): ReadonlyMap<string, readonly Place[]> {
  const groups = new Map<string, readonly Place[]>([['header', headerPlaces(image)]])
  const clusterSize = 2 ** image.readUInt32BE(20)
  const l1Offset = Number(image.readBigUInt64BE(40))
  const l1 = words('L1 entry', image, l1Offset, image.readUInt32BE(36))
  const tableOffset = Number(image.readBigUInt64BE(48))
  const table = words('refcount table entry', image, tableOffset, (image.readUInt32BE(56) * clusterSize) / 8)
  const pointed = (place: Place): number => Number(image.readBigUInt64BE(place.offset) & offsetMask)
  const within = (what: string, places: readonly Place[]): Place[] =>
    places
      .map(pointed)
      .filter((offset) => offset > 0)
      .flatMap((offset) => words(what, image, offset, clusterSize / 8))
  groups.set('L1 table', l1)
  groups.set('L2 table', within('L2 entry', l1))
  groups.set('refcount table', table)
  groups.set('refcount block', within('refcounts', table))
  groups.set('header extensions', extensionPlaces(image))
  groups.set('snapshot table', snapshotPlaces(image))
  groups.set('bitmap directory', bitmapPlaces(image))
  return new Map([...groups].filter(([, places]) => places.length > 0))
}

function words(what: string, image: Buffer, start: number, count: number): Place[] {
  const places: Place[] = []
  for (let offset = start; places.length < Math.min(count, mostEntries); offset += 8) {
    if (offset + 8 > image.length) break
    places.push({ what, offset, width: 8 })
  }
  return places
}

function headerPlaces(image: Buffer): Place[] {
  const isVersion3 = image.readUInt32BE(4) === 3
  const fields = [
    ...Object.entries(headerV2.offsets),
    ...(isVersion3
      ? Object.entries(headerV3.offsets).map(([name, at]) => [name, at + headerV2.sizeBytes] as const)
      : []),
  ].sort(([, left], [, right]) => left - right)
  const end = isVersion3 ? headerV2.sizeBytes + headerV3.sizeBytes : headerV2.sizeBytes
  const places = fields.map(([name, offset], index): Place => {
    const next = fields[index + 1]?.[1] ?? end
    return { what: `header field ${name}`, offset, width: next - offset === 8 ? 8 : 4 }
  })
  return isVersion3 ? [...places, { what: 'header field compressionType', offset: 104, width: 1 }] : places
}

function extensionPlaces(image: Buffer): Place[] {
  const places: Place[] = []
  let offset = image.readUInt32BE(4) === 3 ? image.readUInt32BE(100) : headerV2.sizeBytes
  for (let count = 0; count < 8 && offset + 8 <= image.length; count++) {
    const { type, length } = extensionHeader.decode(image, offset, offset)
    places.push(
      { what: 'extension type', offset, width: 4 },
      { what: 'extension length', offset: offset + 4, width: 4 },
    )
    if (type === 0) break
    const data = words(`extension ${type.toString(16)}`, image, offset + 8, Math.ceil(length / 8))
    places.push(...data.slice(0, 8))
    offset += 8 + Math.ceil(length / 8) * 8
  }
  return places
}

function snapshotPlaces(image: Buffer): Place[] {
  const places: Place[] = []
  let offset = Number(image.readBigUInt64BE(64))
  for (let left = image.readUInt32BE(60); left > 0 && offset + 40 <= image.length; left--) {
    const { idBytes, nameBytes, extraBytes } = snapshotEntry.decode(image, offset, offset)
    for (const [name, at] of Object.entries(snapshotEntry.offsets)) {
      const width = name.endsWith('Offset') || name === 'vmClock' ? 8 : /^(id|name)Bytes$/.test(name) ? 2 : 4
      places.push({ what: `snapshot's ${name}`, offset: offset + at, width })
    }
    const bytes = 40 + extraBytes + idBytes + nameBytes
    places.push(...words("snapshot's extra data", image, offset + 40, Math.ceil((bytes - 40) / 8)))
    offset += Math.ceil(bytes / 8) * 8
  }
  return places
}

function bitmapPlaces(image: Buffer): Place[] {
  const extension = image.indexOf(Buffer.from([0x23, 0x85, 0x28, 0x75]))
  if (extension < 0 || extension > 512) return []
  return words('bitmap directory', image, Number(image.readBigUInt64BE(extension + 24)), 6)
}
