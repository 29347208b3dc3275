import { createHash } from 'node:crypto'
import { readFile, rm } from 'node:fs/promises'
import { openImage } from '../../lib/index.js'
import { qemuImg, qemuReadOf } from './qemu.js'

/** What stock tools are told of an image: options and the name. */
export type ToolImage = readonly string[]

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

export async function fileHash(path: string): Promise<string> {
  return sha(await readFile(path))
}

/** All that must be after compacting as it was before, as the stock tool sees it; bitmaps as we do. */
export async function shownBy(
  path: string,
  tool: ToolImage,
  options: Parameters<typeof openImage>[1] = {},
): Promise<Record<string, string>> {
  const copy = `${path}.copy`
  const shown: Record<string, string> = {}
  const list = await qemuImg('snapshot', '-l', ...tool.filter((word) => word !== '-f' && word !== 'qcow2'))
  shown['snapshots'] = list
  shown['disk'] = sha(await qemuReadOf(tool, copy))
  for (const [, id = ''] of list.matchAll(/^(\d+) /gm)) {
    await qemuImg('convert', '-l', `snapshot.id=${id}`, ...tool, '-O', 'raw', copy)
    shown[`snapshot ${id}`] = sha(await readFile(copy))
    await rm(copy)
  }
  const map = JSON.parse(await qemuImg('map', '--output=json', ...tool)) as Record<string, unknown>[]
  // Where a run ends depends on where its clusters are.
  shown['map'] = JSON.stringify(mergedRuns(map))
  const info = JSON.parse(await qemuImg('info', '--output=json', ...tool)) as Record<string, unknown>
  delete info['actual-size']
  shown['info'] = JSON.stringify(info)
  shown['bitmaps'] = await bitmapsOf(path, options)
  return shown
}

function mergedRuns(map: readonly Record<string, unknown>[]): unknown[] {
  const runs: Record<string, unknown>[] = []
  for (const { start, length, depth, present, zero, data } of map) {
    // Whether data reads as zeros is found out by the holes of the file.
    const kind = JSON.stringify([depth, present, data === true ? undefined : zero, data])
    const last = runs.at(-1)
    if (last?.['kind'] === kind) last['length'] = Number(last['length']) + Number(length)
    else runs.push({ start, length, kind })
  }
  return runs
}

async function bitmapsOf(path: string, options: Parameters<typeof openImage>[1]): Promise<string> {
  const image = await openImage(path, { ...options, readOnly: true })
  try {
    const said: unknown[] = []
    for (const bitmap of await image.bitmaps.list()) {
      said.push(bitmap)
      if (bitmap.inconsistent) continue
      for await (const range of image.bitmaps.ranges(bitmap.name)) said.push(range)
    }
    return JSON.stringify(said)
  } finally {
    await image.close()
  }
}

/** Refcount blocks beyond those that count what the file has. */
export function needlessBlocks(file: Buffer): number {
  const clusterSize = 2 ** file.readUInt32BE(20)
  const bits = file.readUInt32BE(4) === 2 ? 16 : 2 ** file.readUInt32BE(96)
  const table = Number(file.readBigUInt64BE(48))
  const needed = Math.ceil(file.length / clusterSize / ((clusterSize * 8) / bits))
  const behind = file.subarray(table + 8 * needed, table + file.readUInt32BE(56) * clusterSize)
  return Array.from({ length: Math.floor(behind.length / 8) }, (_, index) =>
    behind.readBigUInt64BE(8 * index),
  ).filter((block) => block !== 0n).length
}

/** Clusters with a refcount, as the file says it. qcow2 spec, "Host cluster management". */
export function countedClusters(file: Buffer): number {
  const clusterSize = 2 ** file.readUInt32BE(20)
  const bits = file.readUInt32BE(4) === 2 ? 16 : 2 ** file.readUInt32BE(96)
  const table = Number(file.readBigUInt64BE(48))
  const entries = (file.readUInt32BE(56) * clusterSize) / 8
  let counted = 0
  for (let index = 0; index < entries; index++) {
    const block = Number(file.readBigUInt64BE(table + 8 * index))
    if (block === 0) continue
    const bytes = file.subarray(block, block + clusterSize)
    for (let entry = 0; entry < (clusterSize * 8) / bits; entry++) {
      const at = Math.floor((entry * bits) / 8)
      const isCounted =
        bits < 8
          ? ((bytes[at] ?? 0) & ((2 ** bits - 1) << ((entry * bits) % 8))) !== 0
          : bytes.subarray(at, at + bits / 8).some((byte) => byte !== 0)
      if (isCounted) counted++
    }
  }
  return counted
}
