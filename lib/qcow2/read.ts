import { namingFile } from '../base/errors.js'
import { type GuestOffset, guestOffset } from '../base/units.js'
import type { MappedRun } from './l2-tables.js'
import type { Parts } from './parts.js'

/**
 * Fill `bytes` from plain clusters whose place is in memory, the way of most requests: without an async function, and without a ticket where the host has
 * the bytes in memory too, for then nothing can come in between.
 * @returns undefined when the range is not of that kind, or the request has to wait before it begins
 */
export function readPlain(parts: Parts, bytes: Uint8Array, guest: GuestOffset): Promise<void> | undefined {
  const { active, backend, data, frees, l2, unsyncedData } = parts
  if (active.gate !== undefined) return undefined
  const host = l2.contiguousHost(guest, bytes.byteLength, { inPlace: false })
  if (host < 0) return undefined
  if (data.readAtOnce?.(bytes, host) === true) {
    unsyncedData.refuse(host, bytes.byteLength)
    return Promise.resolve()
  }
  const ticket = active.begin()
  const end = (): void => {
    active.end(ticket)
    if (frees.pending) frees.release()
  }
  return data.read(bytes, host, guest).then(
    () => {
      end()
      unsyncedData.refuse(host, bytes.byteLength)
    },
    (error: unknown) => {
      end()
      throw namingFile(error, backend.path)
    },
  )
}

/** Fill `bytes` with what the guest sees at `guest`. The caller holds a ticket of ActiveRequests, which keeps the clusters. */
export async function readGuest(parts: Parts, bytes: Uint8Array, guest: GuestOffset): Promise<void> {
  const reads: Promise<void>[] = []
  try {
    for (let done = 0; done < bytes.byteLength;) {
      const at = guestOffset(guest + done)
      const run = await parts.l2.find(at, bytes.byteLength - done)
      const read = readRun(parts, run, bytes.subarray(done, done + run.length), at)
      // It may fail while the next table is being loaded, before anybody waits for it: below is where that is told.
      read.catch(() => undefined)
      reads.push(read)
      done += run.length
    }
  } finally {
    // Also when a lookup failed: the buffer is the caller's again only when nothing writes to it any more.
    await Promise.allSettled(reads)
  }
  await Promise.all(reads)
}

/** Fill `bytes` from one run. What the run says must still be true: no await since it was looked up. */
export async function readRun(
  parts: Parts,
  run: MappedRun,
  bytes: Uint8Array,
  guest: GuestOffset,
): Promise<void> {
  const { entry } = run
  switch (entry.type) {
    case 'zero':
      bytes.fill(0)
      return
    case 'unallocated':
      await readBacking(parts, bytes, guest)
      return
    case 'normal': {
      const host = entry.host + (guest % parts.geometry.clusterSize)
      await parts.data.read(bytes, host, guest)
      parts.unsyncedData.refuse(host, bytes.byteLength)
      return
    }
    case 'compressed': {
      const { clusterSize } = parts.geometry
      const cluster = await unpack(parts, entry, bytes.byteLength === clusterSize ? bytes : undefined)
      const within = guest % clusterSize
      if (cluster !== bytes) bytes.set(cluster.subarray(within, within + bytes.byteLength))
    }
  }
}

/** @param memory  of a whole cluster, which may be used  @returns the cluster, there or elsewhere */
async function unpack(
  { backend, codec, geometry, unsynced }: Parts,
  { host, bytes: length }: { readonly host: number; readonly bytes: number },
  memory: Uint8Array | undefined,
): Promise<Uint8Array> {
  if (codec.ofBackend !== undefined) {
    const cluster = memory ?? new Uint8Array(geometry.clusterSize)
    const unpacked = await codec.ofBackend.read(cluster, host, length)
    unsynced.refuse(host, length)
    codec.refuseLength(unpacked, host)
    return cluster
  }
  const payload = new Uint8Array(length)
  await backend.read(payload, host)
  unsynced.refuse(host, length)
  return codec.decompress(payload, host)
}

/** Bytes that this image does not map: the backing file's, zeros past its end. */
async function readBacking(parts: Parts, bytes: Uint8Array, guest: GuestOffset): Promise<void> {
  const available =
    parts.backing === undefined ? 0 : Math.max(0, Math.min(bytes.byteLength, parts.backing.size - guest))
  bytes.fill(0, available)
  if (parts.backing !== undefined && available > 0)
    await parts.backing.read(bytes.subarray(0, available), guest)
}
