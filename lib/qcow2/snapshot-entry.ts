import { alignDown, alignUp } from '../base/integers.js'
import { sectorSize } from '../base/units.js'
import type { Snapshot, SnapshotReference } from '../queue/format-image.js'
import { limits, snapshotEntry } from './spec.js'

/** An entry of the snapshot table (qcow2 spec, "Snapshots") with its place, and its bytes as they are: what is not understood in it is kept. */
export type StoredSnapshot = Snapshot & {
  /** Where the entry begins in the file. */
  readonly entryOffset: number
  /** Bytes; not exact from 2^53 on, where no table can be. */
  readonly l1Offset: number
  /** As stored. */
  readonly l1OffsetStored: bigint
  readonly l1Entries: number
  readonly extraBytes: number
  /** The whole entry, padding included. */
  readonly bytes: Uint8Array
}

/** Extra data: VM state size, disk size, instruction count, 64 bits each. */
const extraWritten = 24

/** All ones: the guest does not count instructions. */
const noIcount = 2n ** 64n - 1n

/**
 * @param bytes        holds the entry from `at` on, whole
 * @param entryOffset  where it begins in the file
 */
export function decodeSnapshot(bytes: Uint8Array, at: number, entryOffset: number): StoredSnapshot {
  const entry = snapshotEntry.decode(bytes, at, entryOffset)
  const idAt = snapshotEntry.sizeBytes + entry.extraBytes
  const nameAt = idAt + entry.idBytes
  const length = nameAt + entry.nameBytes
  const stored = Buffer.alloc(alignUp(length, 8))
  stored.set(bytes.subarray(at, at + length))
  const extra = (index: number): bigint | undefined =>
    entry.extraBytes >= (index + 1) * 8
      ? stored.readBigUInt64BE(snapshotEntry.sizeBytes + index * 8)
      : undefined
  const vmStateSize = extra(0)
  const diskSize = extra(1)
  const icount = extra(2)
  return {
    entryOffset,
    l1Offset: Number(entry.l1Offset),
    l1OffsetStored: entry.l1Offset,
    l1Entries: entry.l1Entries,
    extraBytes: entry.extraBytes,
    bytes: stored,
    id: stored.toString('utf8', idAt, nameAt),
    name: stored.toString('utf8', nameAt, length),
    vmStateSize: vmStateSize === undefined ? entry.vmStateBytes : Number(vmStateSize),
    dateSeconds: entry.seconds,
    dateNanoseconds: entry.nanoseconds,
    vmClockNanoseconds: entry.vmClock,
    ...(icount === undefined || icount === noIcount ? {} : { icount }),
    ...(diskSize === undefined ? {} : { diskSize }),
  }
}

/** What is said of a snapshot without its tables. */
export function describeSnapshot(stored: StoredSnapshot): Snapshot {
  const { id, name, vmStateSize, dateSeconds, dateNanoseconds, vmClockNanoseconds, icount, diskSize } = stored
  return {
    id,
    name,
    vmStateSize,
    dateSeconds,
    dateNanoseconds,
    vmClockNanoseconds,
    ...(icount === undefined ? {} : { icount }),
    ...(diskSize === undefined ? {} : { diskSize }),
  }
}

/** A snapshot of the disk alone, without VM state, as `qemu-img snapshot -c` writes it: the instruction count is 0. */
export type NewSnapshot = {
  readonly id: string
  readonly name: string
  readonly date: Date
  /** Guest bytes. */
  readonly diskSize: number
  readonly l1Offset: number
  readonly l1Entries: number
}

/** @returns the entry as it is stored, padding included */
export function encodeSnapshot(snapshot: NewSnapshot): Uint8Array {
  const id = Buffer.from(snapshot.id)
  const name = Buffer.from(snapshot.name)
  const time = snapshot.date.getTime()
  const seconds = Math.floor(time / 1000)
  const extra = Buffer.alloc(extraWritten)
  extra.writeBigUInt64BE(BigInt(snapshot.diskSize), 8)
  const fixed = snapshotEntry.encode({
    l1Offset: BigInt(snapshot.l1Offset),
    l1Entries: snapshot.l1Entries,
    idBytes: id.length,
    nameBytes: name.length,
    seconds,
    nanoseconds: Math.floor((time - seconds * 1000) * 1_000_000),
    vmClock: 0n,
    vmStateBytes: 0,
    extraBytes: extra.length,
  })
  const bytes = new Uint8Array(alignUp(fixed.length + extra.length + id.length + name.length, 8))
  bytes.set(Buffer.concat([fixed, extra, id, name]))
  return bytes
}

/** The next free id: one more than the largest there is, "1" at first. */
export function nextSnapshotId(snapshots: readonly { readonly id: string }[]): string {
  let largest = 0n
  for (const { id } of snapshots) {
    const number = BigInt(/^\d+/.exec(id)?.[0] ?? 0)
    if (number > largest) largest = number
  }
  return String(largest + 1n)
}

/**
 * The snapshot that is meant. A plain word is an id or a name, in the order of `first`; of several with one name it is the first.
 */
export function findSnapshot<S extends { readonly id: string; readonly name: string }>(
  snapshots: readonly S[],
  reference: SnapshotReference,
  first: 'id' | 'name',
): S | undefined {
  if (typeof reference === 'string') {
    const second = first === 'id' ? 'name' : 'id'
    return (
      snapshots.find((snapshot) => snapshot[first] === reference) ??
      snapshots.find((snapshot) => snapshot[second] === reference)
    )
  }
  const { id, name } = reference
  return snapshots.find(
    (snapshot) => (id === undefined || snapshot.id === id) && (name === undefined || snapshot.name === name),
  )
}

/** Guest bytes of the disk when the snapshot was made; an entry that does not say it is of an image that could not be resized. */
export function diskSizeOf(snapshot: Snapshot, now: number): number {
  return snapshot.diskSize === undefined ? now : alignDown(Number(snapshot.diskSize), sectorSize)
}

/** Most that a table with one entry more may take. */
export function hasRoomFor(snapshots: number, tableBytes: number): boolean {
  return snapshots <= limits.snapshots && tableBytes <= limits.snapshotTableBytes
}
