import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type CacheMode, checkImage, createImage, imageInfo, openImage } from '../../lib/index.js'
import { backingValue, describeValue, readPayload, valueAt } from '../crash/payload.js'
import { qemuCheck } from '../support/qemu.js'
import { SeededRandom } from '../support/seeded-random.js'
import type { GuestOrders } from './guest.js'
import { bytesOf, Expected, parseLines } from './guest-log.js'

const guestFile = fileURLToPath(new URL('guest.js', import.meta.url))
const size = 8 * 1024 * 1024
const backingByte = 0xb7

export const ends = ['wait', 'kill', 'exit', 'throw', 'terminate'] as const

export type KillOutcome = {
  readonly end: (typeof ends)[number]
  readonly scenario: string
  /** Changes that a flush, or their own end in writethrough, had promised. */
  readonly promises: number
  readonly leaks: number
  /** What was not as promised; undefined if all was. */
  readonly problem: string | undefined
}

type Scenario = { readonly orders: GuestOrders; readonly name: string; readonly hasBacking: boolean }

/**
 * Let a guest write to a new image, end it at a random point in a random way, and look at what it leaves: nothing that was promised is
 * missing, nothing is there that nobody wrote, the check is clean but for leaks, the lock is gone, and the image can be used.
 * @param folder  a folder of its own
 */
export async function killOnce(folder: string, seed: number): Promise<KillOutcome> {
  const random = new SeededRandom(seed)
  const scenario = await prepare(folder, random, seed)
  const { orders, name, hasBacking } = scenario
  await runGuest(orders, random)
  const told = parseLines(await readFile(orders.log, 'utf8'))
  const expected = new Expected(told, orders.cache === 'writethrough', () => (hasBacking ? backingValue : 0))
  const { leaks, problem } = await inspect(orders, expected, random)
  return { end: orders.end, scenario: name, promises: expected.promises, leaks, problem }
}

async function prepare(folder: string, random: SeededRandom, seed: number): Promise<Scenario> {
  const kind = random.pick(['fresh', 'small clusters', 'backing', 'lazy', 'no reservation', 'raw'] as const)
  const cache = random.pick(['writeback', 'none', 'writethrough'] as const satisfies readonly CacheMode[])
  const path = join(folder, 'disk')
  const format = kind === 'raw' ? 'raw' : 'qcow2'
  if (kind === 'backing') {
    await createImage(join(folder, 'base'), { format: 'raw', size })
    await using base = await openImage(join(folder, 'base'), { format: 'raw' })
    await base.write(new Uint8Array(size).fill(backingByte), 0)
  }
  await createImage(path, {
    format,
    ...(kind === 'backing' ? { backingFile: 'base', backingFormat: 'raw' as const } : { size }),
    ...(kind === 'lazy' ? { lazyRefcounts: true } : {}),
    ...(kind === 'small clusters' ? { clusterSize: 4096, refcountBits: 64 } : {}),
  })
  const end = random.pick(ends)
  const log = join(folder, 'log')
  const orders = { path, log, format, cache, seed, requests: 1 + random.integer(400), end } as const
  return { orders, name: `${kind}, cache=${cache}`, hasBacking: kind === 'backing' }
}

function runGuest(orders: GuestOrders, random: SeededRandom): Promise<void> {
  return new Promise((resolve, reject) => {
    // What an uncaught error prints is as it should be.
    const child = spawn(process.execPath, [guestFile, JSON.stringify(orders)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const delay = random.integer(150)
    let errors = ''
    child.stdout.once('data', () => {
      if (orders.end === 'wait') setTimeout(() => child.kill('SIGKILL'), delay)
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors += text
    })
    child.on('error', reject)
    child.on('close', (code, signal) => {
      const isExpected = {
        wait: signal === 'SIGKILL',
        kill: signal === 'SIGKILL',
        exit: code === 0,
        terminate: code === 0,
        throw: code === 1 && errors.includes('the guest ends as it was told to'),
      }[orders.end]
      if (isExpected) resolve()
      else reject(new Error(`the guest ended with ${code ?? signal}: ${errors}`))
    })
  })
}

async function inspect(
  orders: GuestOrders,
  expected: Expected,
  random: SeededRandom,
): Promise<{ leaks: number; problem: string | undefined }> {
  const { path, format } = orders
  let leaks = 0
  // An image whose counts were written lazily is repaired when it is opened: before, its counts say nothing.
  const found = format === 'qcow2' ? await checkImage(path) : undefined
  if (found !== undefined && 'corruptions' in found) {
    const isDirty = (await isMarkedDirty(path)) && found.corruptions > 0
    if (found.corruptions > 0 && !isDirty) return { leaks, problem: `${found.corruptions} corruptions` }
    leaks = found.leaks
    const verdict = !isDirty && random.chance(0.2) ? await qemuCheck(path) : ''
    if (verdict !== '' && !verdict.includes('exits with 3')) return { leaks, problem: verdict }
  }
  {
    await using image = await openImage(path, { format })
    for (const lba of expected.lbas) {
      const bytes = await image.read({ offset: lba * 512, length: 512 })
      const payload = readPayload(bytes, 0)
      const value = bytes.every((byte) => byte === backingByte)
        ? backingValue
        : valueAt(lba, payload.lba, payload.generation)
      if (!expected.mayShow(lba, value)) {
        return {
          leaks,
          problem: `lba ${lba} shows ${describeValue(value)}, where it may show ${expected.describe(lba)}`,
        }
      }
    }
    for (let index = 0; index < 5; index++) {
      const lba = random.integer(size / 512)
      await image.write(bytesOf(lba, 1, 1_000_000), lba * 512)
    }
  }
  const after = format === 'qcow2' ? await checkImage(path) : undefined
  if (after !== undefined && 'corruptions' in after && after.corruptions > 0) {
    return { leaks, problem: `${after.corruptions} corruptions after it was used again` }
  }
  return { leaks, problem: undefined }
}

async function isMarkedDirty(path: string): Promise<boolean> {
  return (await imageInfo(path)).dirty === true
}
