import type { ImageInfo, Qcow2Info } from '../operations/info.js'
import { encryptData } from './encrypt-report.js'
import type { Json } from './json-text.js'
import { escapeName as printable } from '../qcow2/header-extensions.js'
import { formatSize } from '../base/size-text.js'

type SnapshotInfo = NonNullable<ImageInfo['snapshots']>[number]

/** A report as `qemu-img info` prints it, each line with its newline. */
export function infoText(image: ImageInfo): string {
  const lines = [
    `image: ${printable(image.path)}`,
    `file format: ${image.format}`,
    `virtual size: ${formatSize(image.virtualSize)} (${image.virtualSize} bytes)`,
    `disk size: ${formatSize(image.actualSize)}`,
  ]
  if (image.encrypted === true) lines.push('encrypted: yes')
  if (image.clusterSize !== undefined) lines.push(`cluster_size: ${image.clusterSize}`)
  if (image.dirty === true) lines.push('cleanly shut down: no')
  if (image.backingFile !== undefined) lines.push(`backing file: ${backingText(image, image.backingFile)}`)
  if (image.backingFormat !== undefined) lines.push(`backing file format: ${printable(image.backingFormat)}`)
  if (image.snapshots !== undefined) lines.push(...snapshotLines(image.snapshots))
  if (image.qcow2 !== undefined) {
    lines.push('Format specific information:', ...specificLines(formatData(image.qcow2), 1))
  }
  return lines.map((line) => `${line}\n`).join('')
}

function backingText(image: ImageInfo, stored: string): string {
  const full = image.fullBackingFile ?? stored
  return full === stored ? printable(stored) : `${printable(stored)} (actual path: ${printable(full)})`
}

const columns = ([id, tag, size, date, clock, icount]: readonly [
  string,
  string,
  string,
  string,
  string,
  string,
]): string =>
  `${id.padEnd(9)} ${tag.padEnd(16)} ${size.padStart(8)}${date.padStart(20)}${clock.padStart(13)}${icount.padStart(11)}`

const snapshotHeader = columns(['ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT'])

/** The table of snapshots, under its title. */
export function snapshotLines(snapshots: readonly SnapshotInfo[]): string[] {
  return ['Snapshot list:', snapshotHeader, ...snapshots.map(snapshotLine)]
}

function snapshotLine(snapshot: SnapshotInfo): string {
  return columns([
    printable(snapshot.id),
    printable(snapshot.name),
    formatSize(snapshot.vmStateSize),
    localTime(new Date(snapshot.dateSeconds * 1000)),
    clockText(snapshot.vmClockNanoseconds),
    snapshot.icount === undefined ? '' : String(snapshot.icount),
  ])
}

const two = (value: number): string => String(value).padStart(2, '0')

function localTime(date: Date): string {
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
}

/** `hh:mm:ss.mmm` */
function clockText(nanoseconds: bigint): string {
  const milliseconds = Number(nanoseconds / 1_000_000n)
  const seconds = Math.floor(milliseconds / 1000)
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60].map(two)
  return `${parts.join(':')}.${String(milliseconds % 1000).padStart(3, '0')}`
}

/** Nested `key: value` lines; dashes of the keys become blanks. */
function specificLines(value: Json, depth: number): string[] {
  if (typeof value !== 'object') return []
  const indent = ' '.repeat(4 * depth)
  return Object.entries(value).flatMap(([key, member]: [string, Json | undefined]) => {
    if (member === undefined) return []
    const label = Array.isArray(value) ? `[${key}]` : key.replaceAll('-', ' ')
    if (typeof member === 'object') return [`${indent}${label}:`, ...specificLines(member, depth + 1)]
    return [`${indent}${label}: ${typeof member === 'string' ? printable(member) : member}`]
  })
}

/** The report of `info --output=json`, keys in QEMU 7.2's order. */
export function infoJson(image: ImageInfo): Json {
  return {
    'backing-filename-format': image.backingFormat,
    snapshots: image.snapshots?.map(snapshotJson),
    'virtual-size': image.virtualSize,
    filename: image.path,
    'cluster-size': image.clusterSize,
    format: image.format,
    'actual-size': image.actualSize,
    'format-specific': image.qcow2 && { type: 'qcow2', data: formatData(image.qcow2) },
    'full-backing-filename': image.fullBackingFile,
    encrypted: image.encrypted === true ? true : undefined,
    'backing-filename': image.backingFile,
    'dirty-flag': image.dirty ?? false,
  }
}

function snapshotJson(snapshot: SnapshotInfo): Json {
  const nanoseconds = snapshot.vmClockNanoseconds
  return {
    icount: snapshot.icount === undefined ? undefined : Number(snapshot.icount),
    'vm-clock-nsec': Number(nanoseconds % 1_000_000_000n),
    name: snapshot.name,
    'date-sec': snapshot.dateSeconds,
    'date-nsec': snapshot.dateNanoseconds,
    'vm-clock-sec': Number(nanoseconds / 1_000_000_000n),
    id: snapshot.id,
    'vm-state-size': snapshot.vmStateSize,
  }
}

/** A version 2 image cannot have what is undefined here. */
function formatData(qcow2: Qcow2Info): { readonly [key: string]: Json | undefined } {
  const version3 = qcow2.compat === '1.1'
  return {
    compat: qcow2.compat,
    'compression-type': qcow2.compressionType,
    'lazy-refcounts': version3 ? qcow2.lazyRefcounts : undefined,
    bitmaps: qcow2.bitmaps?.map(({ name, granularity, flags }) => ({ flags: [...flags], name, granularity })),
    'refcount-bits': qcow2.refcountBits,
    encrypt: encryptData(qcow2.encrypt),
    'data-file': qcow2.dataFile,
    'data-file-raw': qcow2.dataFileRaw,
    corrupt: version3 ? qcow2.corrupt : undefined,
    'extended-l2': version3 ? qcow2.extendedL2 : undefined,
  }
}
