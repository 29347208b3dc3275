import { copyFile } from 'node:fs/promises'
import { type CacheMode, checkImage, createImage, type DiskImage, openImage } from '../../lib/index.js'
import { run } from '../support/qemu.js'
import type { FailingMemory } from './failing-memory.js'
import { Attempts, closedUnasked, descriptorsOf, type Outcome } from './attempts.js'

const cluster = 65536
const size = 64 * cluster
/** One image of so many is looked at by the stock tool as well. */
const everySo = 4
const fill = (value: number, length = cluster): Uint8Array => new Uint8Array(length).fill(value)

/** An image with a few clusters in use, to start from. */
export async function prepareImage(path: string): Promise<void> {
  const start = `${path}.start`
  await createImage(start, { format: 'qcow2', size })
  await using image = await openImage(start)
  for (let i = 0; i < 8; i++) await image.write(fill(1), i * cluster)
}

/**
 * A guest that writes, discards, flushes; then the image is looked at.
 * @param path  to be overwritten; beside it is `.start`, as prepareImage made it
 */
export async function imageWork(
  memory: FailingMemory,
  path: string,
  fault: { readonly n: number; readonly forEver: boolean; readonly mode: CacheMode },
): Promise<Outcome> {
  await copyFile(`${path}.start`, path)
  memory.failAt(fault.n, fault)
  const attempts = new Attempts()
  const guest = new Map<number, Set<number>>()
  const opened = await attempts.result('open', () => openImage(path, { cache: fault.mode }))
  if (opened !== undefined) await useImage(opened.value, attempts, guest)
  const { failed } = memory.relent()
  const { problems } = attempts
  if (opened === undefined) await closedUnasked(path)
  if (descriptorsOf(path) > 0) problems.push('a descriptor is left')
  await inspect(path, guest, problems)
  if (fault.n % everySo === 0) {
    const { code, stdout, stderr } = await run('qemu-img', ['check', '-f', 'qcow2', path])
    // 3: leaks only.
    if (code !== 0 && code !== 3) problems.push(`qemu-img check exits with ${code}: ${stdout}${stderr}`)
  }
  return { problems, failed }
}

/** @param guest  by cluster: what may be read there */
async function useImage(
  image: DiskImage,
  attempts: Attempts,
  guest: Map<number, Set<number>>,
): Promise<void> {
  /** Its last change of each cluster, and whether that succeeded. */
  const unflushed = new Map<number, { readonly value: number; readonly succeeded: boolean }>()
  const values = (index: number): Set<number> => {
    const known = guest.get(index) ?? new Set([index < 8 ? 1 : 0])
    guest.set(index, known)
    return known
  }
  const write = async (index: number, value: number): Promise<void> => {
    values(index).add(value)
    const succeeded = await attempts.succeeds('write', () => image.write(fill(value), index * cluster))
    unflushed.set(index, { value, succeeded })
  }
  const flush = async (): Promise<void> => {
    if (!(await attempts.succeeds('flush', () => image.flush()))) return
    for (const [index, { value, succeeded }] of unflushed) {
      if (succeeded) guest.set(index, new Set([value]))
    }
    unflushed.clear()
  }
  await Promise.all([write(8, 2), write(9, 3), write(20, 4), write(0, 5)])
  await flush()
  values(1).add(0)
  const discarded = await attempts.succeeds('discard', () =>
    image.discard({ offset: cluster, length: cluster }),
  )
  unflushed.set(1, { value: 0, succeeded: discarded })
  await write(21, 6)
  const read = await attempts.result('read', () => image.read({ offset: 8 * cluster, length: cluster }))
  if (read !== undefined && !values(8).has(read.value[0] as number)) attempts.problems.push('a read is wrong')
  await flush()
  // The freed cluster is used again.
  await Promise.all([write(22, 7), write(23, 8), write(8, 9)])
  await flush()
  await attempts.succeeds('close', () => image.close())
}

async function inspect(
  path: string,
  guest: ReadonlyMap<number, ReadonlySet<number>>,
  problems: string[],
): Promise<void> {
  const result = await checkImage(path)
  if (!result.supported) throw new Error('an image that cannot be checked')
  if (result.corruptions + result.checkErrors > 0) {
    problems.push(`the check finds ${JSON.stringify(result.findings.slice(0, 3))}`)
  }
  await using image = await openImage(path, { readOnly: true })
  for (const [index, values] of guest) {
    const bytes = await image.read({ offset: index * cluster, length: cluster })
    const [first = 0] = bytes
    if (!values.has(first) || bytes.some((byte) => byte !== first)) {
      problems.push(`cluster ${index} holds ${first}, not ${[...values].join(' or ')}`)
    }
  }
}
