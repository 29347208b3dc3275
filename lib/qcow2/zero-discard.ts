import { assert } from '../base/assert.js'
import { notSupported } from '../base/errors.js'
import { alignDown, alignUp } from '../base/integers.js'
import { type GuestOffset, guestOffset, type HostOffset, noSection, type Section } from '../base/units.js'
import { punchDropped, unlinkTable, zeroRaw } from './data-file.js'
import { type L2Entry, storeUnallocated, storeZero } from './l2-entry.js'
import type { EntryPlace, MappedRun } from './l2-tables.js'
import { changingSlice, type Parts } from './parts.js'
import { refuseMetadata } from './replaced-clusters.js'
import { writeGuest } from './write.js'
import { changeSubclusters } from './zero-subclusters.js'

/**
 * What a range of whole clusters is to become.
 * 'discard': reads as zeros, clusters given back; where the format cannot say so, unchanged.
 * 'zero': reads as zeros, clusters kept. 'zero-unmap': reads as zeros, clusters given back.
 * 'zero-over': as 'zero-unmap', whatever the backing file is: not only where this one has something to hide.
 * 'unallocate': the mapping is dropped, whatever shows then (shrinking).
 */
export type MappingChange = 'discard' | 'zero' | 'zero-unmap' | 'zero-over' | 'unallocate'

/** What one run of entries becomes: their new form, and whether their clusters lose a reference. */
type Outcome = { readonly entry: 'unallocated' | 'zero'; readonly keep: boolean }

/** Zeros are written in pieces of at most this many bytes, where the format has no flag for them. */
const zeroPieceBytes = 1024 * 1024

/**
 * Make whole clusters, or subclusters of an image that has them, read as zeros, and go on doing so on another backing file, of any length.
 * @param guest  aligned to them, as is the end of the range unless the disk ends there; nothing there is compressed
 */
export async function hideBacking(
  parts: Parts,
  guest: GuestOffset,
  length: number,
  options: { size: number },
): Promise<void> {
  const whole = wholeClusters(parts, guest, length, options.size, parts.geometry.subclusterSize)
  assert(whole.start === guest && whole.length >= length, 'whole clusters or subclusters')
  if (parts.version === 3) await changeMapping(parts, guest, whole.length, 'zero-over')
  else {
    for (let done = 0; done < length; done += zeroPieceBytes) {
      const piece = new Uint8Array(Math.min(zeroPieceBytes, length - done))
      await writeGuest(parts, { bytes: piece, guest: guestOffset(guest + done) })
    }
  }
  await parts.ordering.unchanged()
}

/** Make a range read as zeros. Parts of clusters are written, unless they read as zeros already. */
export async function writeZeroesGuest(
  parts: Parts,
  guest: GuestOffset,
  length: number,
  options: { unmap: boolean; size: number },
): Promise<void> {
  const whole = wholeClusters(parts, guest, length, options.size)
  await writeZeroBytes(parts, guest, whole.start - guest, options.size)
  if (parts.version === 3) {
    await changeMapping(parts, whole.start, whole.length, options.unmap ? 'zero-unmap' : 'zero')
  } else await zeroVersion2(parts, whole.start, whole.length, options)
  const tail = whole.start + whole.length
  await writeZeroBytes(parts, guestOffset(tail), Math.max(0, guest + length - tail), options.size)
  await parts.ordering.unchanged()
}

/** Version 2 has no zero flag: without a backing file a dropped mapping reads as zeros; otherwise zeros are written. */
async function zeroVersion2(
  parts: Parts,
  guest: GuestOffset,
  length: number,
  options: { unmap: boolean; size: number },
): Promise<void> {
  const hidden = Math.min(length, alignUp(hiddenBytes(parts, guest, length), parts.geometry.clusterSize))
  if (options.unmap) await changeMapping(parts, guestOffset(guest + hidden), length - hidden, 'unallocate')
  await writeZeroBytes(parts, guest, options.unmap ? hidden : length, options.size)
}

/** Drop the contents of the whole clusters in a range. Advisory for what is not whole. @throws ERR_NOT_SUPPORTED version 2 over a backing file */
export async function discardGuest(
  parts: Parts,
  guest: GuestOffset,
  length: number,
  options: { size: number },
): Promise<void> {
  const whole = wholeClusters(parts, guest, length, options.size)
  if (parts.version === 2 && hiddenBytes(parts, whole.start, whole.length) > 0) {
    throw notSupported(
      'A version 2 image over a backing file cannot discard: the old contents would show again',
      {
        path: parts.backend.path,
      },
    )
  }
  await changeMapping(parts, whole.start, whole.length, 'discard')
  await parts.ordering.unchanged()
}

/** The whole clusters of a range; the last cluster of the disk is whole although the disk ends within it. Empty: length 0 at the range's end. */
function wholeClusters(
  parts: Parts,
  guest: GuestOffset,
  length: number,
  size: number,
  cluster = parts.geometry.clusterSize,
): { start: GuestOffset; length: number } {
  const end = guest + length
  const start = alignUp(guest, cluster)
  const wholeEnd = end === size ? alignUp(end, cluster) : alignDown(end, cluster)
  if (start >= wholeEnd) return { start: guestOffset(end), length: 0 }
  return { start: guestOffset(start), length: wholeEnd - start }
}

/** How many bytes of a range would show the backing file if their mapping were dropped. */
function hiddenBytes(parts: Parts, guest: number, length: number): number {
  return parts.backing === undefined ? 0 : Math.max(0, Math.min(length, parts.backing.size - guest))
}

/** Write zeros as data, where the range does not read as zeros yet; with extended L2 entries whole subclusters are marked instead, but not those of a raw data file. */
async function writeZeroBytes(parts: Parts, guest: GuestOffset, length: number, size: number): Promise<void> {
  if (parts.geometry.extendedL2 && parts.dataFile?.isRaw !== true && length > 0) {
    const whole = wholeClusters(parts, guest, length, size, parts.geometry.subclusterSize)
    await changeSubclusters(parts, whole.start, whole.length, 'zero')
  }
  for (let done = 0; done < length;) {
    const at = guestOffset(guest + done)
    const run = await parts.l2.find(at, Math.min(length - done, zeroPieceBytes))
    if (!readsAsZeros(parts, run, at))
      await writeGuest(parts, { bytes: new Uint8Array(run.length), guest: at })
    done += run.length
  }
}

function readsAsZeros(parts: Parts, run: MappedRun, guest: GuestOffset): boolean {
  if (run.entry.type === 'unallocated') return hiddenBytes(parts, guest, run.length) === 0
  return run.entry.type === 'zero'
}

/** Change the mapping of whole clusters, slice by slice, with the guest clusters of each locked. */
export async function changeMapping(
  parts: Parts,
  guest: GuestOffset,
  length: number,
  change: MappingChange,
): Promise<void> {
  if (parts.geometry.extendedL2) {
    await changeSubclusters(parts, guest, length, change)
    return
  }
  const coverage = parts.geometry.l2EntriesPerSlice * parts.geometry.clusterSize
  for (let done = 0; done < length;) {
    const at = guest + done
    const piece = Math.min(length - done, coverage - (at % coverage))
    const skipped = parts.l2.lookup(guestOffset(at), length - done)
    if (!('load' in skipped) && outcomeOf(parts, skipped, guestOffset(at), change) === undefined) {
      // Nothing to do here, possibly for a whole table's worth: no lock, no table.
      done += skipped.length
      continue
    }
    const first = at / parts.geometry.clusterSize
    const last = first + piece / parts.geometry.clusterSize - 1
    await changingSlice(parts, { first, last }, () => changeRuns(parts, guestOffset(at), piece, change))
    done += piece
  }
}

/** Change the runs of a range within one slice. */
async function changeRuns(
  parts: Parts,
  guest: GuestOffset,
  length: number,
  change: MappingChange,
): Promise<void> {
  const { l2, ordering } = parts
  for (let done = 0; done < length;) {
    const at = guestOffset(guest + done)
    let run = await l2.find(at, length - done)
    if (outcomeOf(parts, run, at, change) !== undefined) {
      let place = l2.writablePlace(at)
      for (; place === undefined; place = l2.writablePlace(at)) await l2.prepareWritable(at)
      const found = l2.lookup(at, length - done)
      assert(!('load' in found), 'a writable place is in memory')
      run = found
      await ordering.completed(await changeRun(parts, place, run, at, change))
    }
    done += run.length
  }
}

/**
 * Change one run, and give back what a data file had for it; the guest's clusters are locked. In a raw one zeros come first, and what keeps its
 * entry shows them at once.
 * @returns the section of the change, if there is one
 */
async function changeRun(
  parts: Parts,
  place: EntryPlace,
  run: MappedRun,
  guest: GuestOffset,
  change: MappingChange,
): Promise<Section> {
  const { dataFile, ordering } = parts
  if (dataFile === undefined) return applyChange(parts, place, run, guest, change)
  if (!dataFile.isRaw) {
    const removal = applyChange(parts, place, run, guest, change)
    const isDropped = change === 'discard' || change === 'zero-unmap'
    if (isDropped) await punchDropped(parts, { start: guest, length: run.length }, removal)
    return removal
  }
  if (run.entry.type === 'normal') await zeroRaw(parts, guest, run.length, { unmap: change !== 'zero' })
  const synced = ordering.dataWritten()
  if (synced !== undefined) await synced
  if (run.entry.type === 'normal' && change !== 'unallocate') return noSection
  place.slice.pins++
  try {
    return applyChange(parts, place, run, guest, change)
  } finally {
    place.slice.pins--
  }
}

/** Change the entries of one run. No await in here. @returns the section of the change */
function applyChange(
  parts: Parts,
  place: EntryPlace,
  run: MappedRun,
  guest: GuestOffset,
  change: MappingChange,
): Section {
  const { geometry, frees } = parts
  const outcome = outcomeOf(parts, run, guest, change)
  assert(outcome !== undefined, 'the lock keeps the entries')
  refuseMetadata(parts, run.entry, run.length)
  const host = clustersOf(run.entry)
  const clusters = run.length / geometry.clusterSize
  for (let step = 0; step < clusters; step++) {
    const at = place.at + step * geometry.l2EntryBytes
    if (outcome.entry === 'unallocated') storeUnallocated(place.slice.view, at)
    else
      storeZero(
        place.slice.view,
        at,
        outcome.keep && host !== undefined ? host + step * geometry.clusterSize : undefined,
      )
  }
  const removal = unlinkTable(parts, place.slice)
  if (outcome.keep || host === undefined || parts.dataFile !== undefined) return removal
  const length = run.entry.type === 'compressed' ? run.entry.bytes : run.length
  frees.add(host, length, { removal, punch: true, wasTable: false })
  return removal
}

function clustersOf(entry: L2Entry): HostOffset | undefined {
  return entry.type === 'unallocated' ? undefined : entry.host
}

/** What a run becomes, or undefined when it may stay as it is. */
function outcomeOf(
  parts: Parts,
  run: MappedRun,
  guest: GuestOffset,
  change: MappingChange,
): Outcome | undefined {
  const { entry } = run
  if (change === 'unallocate')
    return entry.type === 'unallocated' ? undefined : { entry: 'unallocated', keep: false }
  if (entry.type === 'unallocated') {
    // Without backing bytes it reads as zeros already. A plain zero entry needs no cluster.
    if (change === 'zero-over') return { entry: 'zero', keep: false }
    return hiddenBytes(parts, guest, run.length) === 0 ? undefined : { entry: 'zero', keep: false }
  }
  if (entry.type === 'zero') {
    return entry.host === undefined || change === 'zero' ? undefined : { entry: 'zero', keep: false }
  }
  if (change === 'discard' && parts.version === 2) return { entry: 'unallocated', keep: false }
  // A cluster that somebody shares cannot be kept for us, and a compressed one has no room.
  return { entry: 'zero', keep: change === 'zero' && entry.type === 'normal' && entry.copied }
}
