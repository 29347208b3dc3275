import { readFile, writeFile } from 'node:fs/promises'

/** Snapshot table entries, each as it is stored without padding. qcow2 spec, "Snapshots". */
export function snapshotEntries(image: Buffer): Buffer[] {
  const entries: Buffer[] = []
  let at = Number(image.readBigUInt64BE(64))
  for (let left = image.readUInt32BE(60); left > 0; left--) {
    const length =
      40 + image.readUInt32BE(at + 36) + image.readUInt16BE(at + 12) + image.readUInt16BE(at + 14)
    entries.push(image.subarray(at, at + length))
    at += Math.ceil(length / 8) * 8
  }
  return entries
}

/**
 * Give the only snapshot of an image with 4 KiB clusters and a disk of 8 MiB a VM state, as a system emulator would save it: behind the disk, from
 * the next L2 table on. Two of its clusters hold bytes; how large it is, is only said.
 */
export async function addVmState(
  path: string,
  state: { readonly bytes: number; readonly icount: bigint; readonly moreExtra: Buffer },
): Promise<void> {
  const clusterSize = 4096
  const before = await readFile(path)
  // Behind all there is: L1 table, L2 table, two clusters of state, snapshot table.
  const first = Math.ceil(before.length / clusterSize)
  const image = Buffer.alloc((first + 5) * clusterSize)
  before.copy(image)
  const entry = snapshotEntries(before)[0] as Buffer
  const oldL1 = Number(entry.readBigUInt64BE(0))
  const oldEntries = entry.readUInt32BE(8)
  const oldTable = Number(before.readBigUInt64BE(64))
  const at = (cluster: number): number => (first + cluster) * clusterSize

  before.copy(image, at(0), oldL1, oldL1 + oldEntries * 8)
  const stateIndex = Math.ceil((8 * 2 ** 20) / (clusterSize * (clusterSize / 8)))
  image.writeBigUInt64BE(BigInt(at(1)), at(0) + stateIndex * 8)
  image.writeBigUInt64BE(BigInt(at(2)), at(1))
  image.writeBigUInt64BE(BigInt(at(3)), at(1) + 8)
  image.fill(0x77, at(2), at(4))

  const idBytes = entry.readUInt16BE(12)
  const names = entry.subarray(40 + entry.readUInt32BE(36))
  const fixed = Buffer.from(entry.subarray(0, 40))
  fixed.writeBigUInt64BE(BigInt(at(0)), 0)
  fixed.writeUInt32BE(stateIndex + 1, 8)
  fixed.writeUInt16BE(idBytes, 12)
  // What does not fit 32 bits stands in the extra data alone.
  fixed.writeUInt32BE(state.bytes < 2 ** 32 ? state.bytes : 0, 32)
  const extra = Buffer.alloc(24)
  extra.writeBigUInt64BE(BigInt(state.bytes), 0)
  extra.writeBigUInt64BE(BigInt(8 * 2 ** 20), 8)
  extra.writeBigUInt64BE(state.icount, 16)
  fixed.writeUInt32BE(24 + state.moreExtra.length, 36)
  Buffer.concat([fixed, extra, state.moreExtra, names]).copy(image, at(4))
  image.writeBigUInt64BE(BigInt(at(4)), 64)

  // One block of 16-bit counts covers all of it.
  const block = Number(image.readBigUInt64BE(Number(image.readBigUInt64BE(48))))
  for (let cluster = 0; cluster < 5; cluster++) image.writeUInt16BE(1, block + (first + cluster) * 2)
  image.writeUInt16BE(0, block + (oldL1 / clusterSize) * 2)
  image.writeUInt16BE(0, block + (oldTable / clusterSize) * 2)
  await writeFile(path, image)
}
