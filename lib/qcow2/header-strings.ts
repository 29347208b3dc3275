import { Qcow2Error } from '../base/errors.js'
import { alignUp } from '../base/integers.js'
import { sectorSize } from '../base/units.js'
import { encodeFormat } from './create-header.js'
import { parseHeader } from './header.js'
import type { Extension } from './header-extensions.js'
import { autoclear, extensionHeader, extensionTypes, headerV2, headerV3, limits } from './spec.js'

/** What a header says of the backing file. */
export type BackingStrings = { readonly file: string; readonly format: string | undefined }

/** What may find no place in a header. */
type StringName = 'backing file name' | 'data file name'

/** qcow2 spec, "Header": the autoclear features. */
const autoclearAt = headerV2.sizeBytes + headerV3.offsets.autoclearFeatures

/** One form of the header. */
export type Form = {
  /** Its fixed fields, as long as the header says that it is. Only where the backing file's name stands is not taken from here. */
  readonly head: Uint8Array
  readonly extensions: readonly Pick<Extension, 'type' | 'data'>[]
  readonly name: Uint8Array
}

/**
 * Give a header another backing file, in one or more steps: first clusters to be written one after the other. Pure: nothing is written here.
 *
 * Of each step only the first sector switches; what stands behind it and is new goes to places that the header before does not use, so that a
 * crash between the two leaves that one whole. qcow2 spec, "Header extensions"; in clusters of 512 bytes all of it is one sector.
 * Unknown fields and extensions stay.
 *
 * @param cluster  the whole first cluster; not changed
 * @param backing  undefined: none
 * @throws ERR_INVALID_OPTION  a format's name that is too long
 * @throws ERR_NOT_SUPPORTED   the name does not fit the header, or there is no place beside the old one
 */
export function planBacking(
  cluster: Uint8Array,
  backing: BackingStrings | undefined,
  path: string,
): Uint8Array[] {
  const now = formOf(cluster, path)
  const name = Buffer.from(backing?.file ?? '', 'utf8')
  const extensions = withFormat(now.extensions, backing?.format)
  return planForm(cluster, { ...now, extensions, name }, path)
}

/**
 * Give a header another data file's name in the same way, or take back that the file is raw.
 * @param dataFile  `name`: undefined: as it is; empty: none, the file is then for whoever opens the image to tell. `isRaw`: whether the bit stays
 * @throws ERR_NOT_SUPPORTED  the name does not fit the header, or there is no place beside the old one
 */
export function planDataFile(
  cluster: Uint8Array,
  { name, isRaw }: { readonly name: string | undefined; readonly isRaw: boolean },
  path: string,
): Uint8Array[] {
  const now = formOf(cluster, path)
  const bytes = name === undefined ? undefined : Buffer.from(name, 'utf8')
  const extensions = bytes === undefined ? now.extensions : withDataFile(now.extensions, bytes)
  const head = now.head.slice()
  const features = new DataView(head.buffer)
  if (!isRaw) features.setBigUint64(autoclearAt, features.getBigUint64(autoclearAt) & ~autoclear.dataFileRaw)
  const length = bytes?.length ?? 0
  const most =
    cluster.length - now.name.length - endOfExtensions(withoutDataFile(now)) - extensionHeader.sizeBytes
  const fits = Math.min(limits.dataFileBytes, most)
  if (alignUp(length, 8) > fits) throw noRoom('data file name', length, fits, path)
  return planForm(cluster, { ...now, head, extensions }, path, { what: 'data file name', length })
}

/**
 * Give a header another form in the same way.
 * @param about  what changes, for the message: the name that may find no place
 * @throws as planBacking
 */
export function planForm(
  cluster: Uint8Array,
  wanted: Form,
  path: string,
  about: { readonly what: StringName; readonly length: number } = {
    what: 'backing file name',
    length: wanted.name.length,
  },
): Uint8Array[] {
  const { name } = wanted
  const now = formOf(cluster, path)
  const room = Math.min(limits.backingFileBytes, cluster.length - endOfExtensions(wanted))
  if (name.length > room) throw noRoom('backing file name', name.length, room, path)

  const direct = place(cluster, wanted, path)
  if (direct !== undefined) return [direct]
  // By way of another form with the old strings: with less in front of the name, or the name somewhere else. The feature names only
  // serve messages; without them the rest nearly always fits the first sector.
  const short = { ...now, extensions: withoutFeatureNames(now.extensions) }
  for (const between of [[short], [now], [short, now], [short, short]]) {
    const steps = throughForms(cluster, [...between, wanted], path)
    if (steps !== undefined) return steps
  }
  throw noRoom(about.what, about.length, Infinity, path)
}

function throughForms(cluster: Uint8Array, forms: readonly Form[], path: string): Uint8Array[] | undefined {
  const steps: Uint8Array[] = []
  for (const [index, form] of forms.entries()) {
    const before = steps.at(-1) ?? cluster
    const isLast = index === forms.length - 1
    const next = place(before, form, path, isLast ? 'near' : index === 0 && forms.length > 2 ? 'same' : 'far')
    if (next === undefined) return undefined
    steps.push(next)
  }
  return steps
}

/**
 * A form of the header, in a place where it disturbs nothing that the header before uses behind the first sector.
 * @param where  'near': the name behind the extensions if possible, as QEMU has it. 'same': where it is. 'far': as far back as possible
 * @returns undefined when there is no such place
 */
function place(
  before: Uint8Array,
  form: Form,
  path: string,
  where: 'near' | 'same' | 'far' = 'near',
): Uint8Array | undefined {
  const used = usedRanges(before, path)
  const end = endOfExtensions(form)
  const last = before.length - form.name.length
  const { backingFileOffset } = headerV2.decode(before, 0, 0)
  const candidates = {
    // Behind the extensions, behind the old name, or at the end.
    near: [end, ...used.map((range) => range.end), last],
    same: [backingFileOffset === 0 ? end : backingFileOffset],
    far: [last],
  }[where]
  for (const at of candidates) {
    if (at < end || at > last) continue
    const after = compose(before, form, at)
    if (used.every((range) => sameBytes(before, after, range))) return after
  }
  return undefined
}

/** What stands behind the first sector and is in use: extensions with their end marker, and the name. */
function usedRanges(cluster: Uint8Array, path: string): { start: number; end: number }[] {
  const { backingFileOffset, backingFileSize } = headerV2.decode(cluster, 0, 0)
  const extensions = endOfExtensions(formOf(cluster, path))
  const extensionsEnd = backingFileOffset === 0 ? extensions : Math.min(extensions, backingFileOffset)
  return [
    { start: sectorSize, end: extensionsEnd },
    { start: Math.max(sectorSize, backingFileOffset), end: backingFileOffset + backingFileSize },
  ].filter(({ start, end }) => start < end)
}

function sameBytes(
  one: Uint8Array,
  other: Uint8Array,
  { start, end }: { start: number; end: number },
): boolean {
  return Buffer.compare(one.subarray(start, end), other.subarray(start, end)) === 0
}

function compose(before: Uint8Array, form: Form, nameAt: number): Uint8Array {
  const cluster = before.slice()
  cluster.set(form.head)
  let at = form.head.length
  for (const { type, data } of form.extensions) {
    cluster.set(extensionHeader.encode({ type, length: data.length }), at)
    const padded = alignUp(data.length, 8)
    cluster.fill(0, at + extensionHeader.sizeBytes, at + extensionHeader.sizeBytes + padded)
    cluster.set(data, at + extensionHeader.sizeBytes)
    at += extensionHeader.sizeBytes + padded
  }
  cluster.fill(0, at, at + extensionHeader.sizeBytes) // the end marker
  cluster.set(form.name, nameAt)
  headerV2.patch(cluster, 0, {
    backingFileOffset: form.name.length === 0 ? 0 : nameAt,
    backingFileSize: form.name.length,
  })
  return cluster
}

/** Where the end marker ends. */
function endOfExtensions({ head, extensions }: Form): number {
  let at = head.length
  for (const { data } of extensions) at += extensionHeader.sizeBytes + alignUp(data.length, 8)
  return at + extensionHeader.sizeBytes
}

export function formOf(cluster: Uint8Array, path: string): Form {
  const { backingFileOffset, backingFileSize } = headerV2.decode(cluster, 0, 0)
  const name = cluster.subarray(backingFileOffset, backingFileOffset + backingFileSize)
  const { extensions, headerLength } = parseHeader(cluster, path)
  return {
    head: cluster.slice(0, headerLength),
    extensions,
    name: backingFileOffset === 0 ? new Uint8Array(0) : name,
  }
}

/** The format takes the place of the old one; a new one goes in front, as QEMU has it. */
function withFormat(extensions: Form['extensions'], format: string | undefined): Form['extensions'] {
  const isFormat = ({ type }: Form['extensions'][number]): boolean => type === extensionTypes.backingFormat
  const others = extensions.filter((extension) => !isFormat(extension))
  if (format === undefined) return others
  const at = Math.max(0, extensions.findIndex(isFormat))
  return [
    ...others.slice(0, at),
    { type: extensionTypes.backingFormat, data: encodeFormat(format) },
    ...others.slice(at),
  ]
}

/** The name takes the place of the old one; a new one goes behind the backing file's format, as QEMU has it. */
function withDataFile(extensions: Form['extensions'], name: Uint8Array): Form['extensions'] {
  const types = extensions.map(({ type }) => type)
  const others = extensions.filter(({ type }) => type !== extensionTypes.dataFileName)
  if (name.length === 0) return others
  const old = types.indexOf(extensionTypes.dataFileName)
  const at = old >= 0 ? old : types.indexOf(extensionTypes.backingFormat) + 1
  return [...others.slice(0, at), { type: extensionTypes.dataFileName, data: name }, ...others.slice(at)]
}

function withoutDataFile(form: Form): Form {
  return { ...form, extensions: withDataFile(form.extensions, new Uint8Array(0)) }
}

export function withoutFeatureNames(extensions: Form['extensions']): Form['extensions'] {
  return extensions.filter(({ type }) => type !== extensionTypes.featureNames)
}

function noRoom(what: StringName, length: number, room: number, path: string): Qcow2Error {
  const why =
    length > room
      ? `at most ${Math.max(0, room)} fit`
      : 'and there is no place for it beside the present one, which a crash must not destroy'
  return new Qcow2Error(
    'ERR_NOT_SUPPORTED',
    `No space left in the file header: the ${what} has ${length} bytes, ${why}`,
    { path, structure: what },
  )
}
