import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { BenchOptions, CacheMode } from '../../lib/index.js'
import { type OurProcess } from './our-process.js'
import type { Bench, Prepared, Row, Side } from './row.js'
import { aioModes, run, stockBench } from './stock.js'

const cluster = 65536

/** Requests of one kind, as `qemu-img bench` makes them. */
type Requests = {
  readonly count: number
  readonly depth: number
  readonly cache: CacheMode
  readonly bufferSize?: number
  readonly step?: number
  readonly write?: boolean
  readonly flushInterval?: number
  /** Ours only: writes are made on the calling thread. */
  readonly inlineWrites?: boolean
  /** Ours: by an io_uring in the place of threads. */
  readonly aio?: 'io_uring'
  readonly inlineWaits?: boolean
}

function oursOf(ours: OurProcess, path: string, requests: Requests): Promise<number> {
  const { cache, inlineWrites = false, inlineWaits = false, aio = 'threads', ...rest } = requests
  const options: BenchOptions = {
    format: 'qcow2',
    cache: { mode: cache, inlineWrites, inlineWaits, aio },
    ...rest,
  }
  return ours.run({ work: 'requests', path, options })
}

function stockWords(requests: Requests): string[] {
  const { count, depth, cache, bufferSize = 4096, step = bufferSize, write, flushInterval } = requests
  const words = { '-c': count, '-d': depth, '-s': bufferSize, '-S': step, '-t': cache }
  return [
    ...Object.entries(words).flatMap(([flag, value]) => [flag, String(value)]),
    ...(write === true ? ['-w', '--pattern=1'] : []),
    ...(flushInterval === undefined ? [] : [`--flush-interval=${flushInterval}`]),
  ]
}

/** The same requests by the stock tool, in each of its ways, to an image that `path` makes ready. */
function stockOf(path: () => Promise<string>, requests: Requests): Record<string, Side> {
  const isDirect = requests.cache === 'none' || requests.cache === 'directsync'
  return Object.fromEntries(
    aioModes(isDirect).map((mode) => [
      mode,
      async () => await stockBench(await path(), ...stockWords(requests), '-i', mode),
    ]),
  )
}

/**
 * An image of which every cluster is there, written in pieces of 4 KiB: a file that came into the page cache in large ones takes small writes much slower.
 * @param bytes  its size, whole clusters
 */
async function filled(path: string, bytes: number): Promise<string> {
  await run('qemu-img', 'create', '-q', '-f', 'qcow2', path, String(bytes))
  await stockBench(path, '-w', '--pattern=1', '-c', String(bytes / 4096), '-d', '32', '-t', 'writeback')
  await run('sync', path)
  return path
}

/** An empty image in place of the one before. */
async function fresh(path: string): Promise<string> {
  await rm(path, { force: true })
  await run('qemu-img', 'create', '-q', '-f', 'qcow2', path, '64G')
  return path
}

/** So many requests that the share asks for, at least what shows anything. */
const scaled = ({ share }: Bench, count: number): number =>
  Math.max(64, Math.round((count * share) / 64) * 64)

/** The same image for every run. */
async function onFilled(bench: Bench, ours: OurProcess, requests: Requests): Promise<Prepared> {
  const path = await filled(
    join(bench.folder, 'filled.qcow2'),
    Math.max(8, Math.round(256 * bench.share)) * 2 ** 21,
  )
  const counted = { ...requests, count: scaled(bench, requests.count) }
  return {
    ours: () => oursOf(ours, path, counted),
    stock: stockOf(() => Promise.resolve(path), counted),
  }
}

/** A new image for every run, each request into a cluster that is not there. */
function onFresh(bench: Bench, ours: OurProcess, requests: Requests): Prepared {
  const path = join(bench.folder, 'fresh.qcow2')
  const counted = { step: cluster, write: true, ...requests, count: scaled(bench, requests.count) }
  return {
    ours: async () => await oursOf(ours, await fresh(path), counted),
    stock: stockOf(() => fresh(path), counted),
  }
}

type Clients = {
  readonly clients: number
  readonly count: number
  readonly aio?: 'io_uring'
  readonly preallocation?: 'full'
}

/**
 * Every write durable before its client's next. The stock tool has two ways: a cache mode in which each write is durable when it completes, and, for one client, a flush after each.
 */
function durable(bench: Bench, ours: OurProcess, { clients, count, ...ways }: Clients): Prepared {
  const path = join(bench.folder, 'fresh.qcow2')
  const writes = scaled(bench, count)
  const shape = { step: cluster, write: true, depth: clients, count: writes }
  const inEveryMode = (name: string, requests: Requests): [string, Side][] =>
    Object.entries(stockOf(() => fresh(path), requests)).map(([mode, side]) => [`${name}, ${mode}`, side])
  const flushed =
    clients > 1 ? [] : inEveryMode('none and flush', { ...shape, cache: 'none', flushInterval: 1 })
  return {
    ours: async () =>
      await ours.run({
        work: 'durable clients',
        path: await fresh(path),
        clients,
        count: writes,
        cache: { mode: 'none', ...ways },
      }),
    stock: Object.fromEntries([
      ...flushed,
      ...inEveryMode('directsync', { ...shape, cache: 'directsync' }),
      ...inEveryMode('writethrough', { ...shape, cache: 'writethrough' }),
    ]),
  }
}

type RowShape = readonly [name: string, work: string, floor: number, goal: number]

/** Rows 1 to 15 of the table; those with an i are the same with `inlineWrites` or, past the page cache, `inlineWaits`, those with a u by an io_uring, those with a z with `preallocation: 'full'`. @param ours  the process in which our side runs */
export function requestRows(ours: OurProcess): Row[] {
  const row = ([name, work, floor, goal]: RowShape, prepare: Row['prepare']): Row => ({
    name,
    work,
    unit: 'ms',
    measure: 'stock / ours',
    floor,
    goal,
    prepare,
  })
  const there = (shape: RowShape, requests: Requests): Row =>
    row(shape, (bench) => onFilled(bench, ours, requests))
  const allocating = (shape: RowShape, requests: Requests): Row =>
    row(shape, async (bench) => onFresh(bench, ours, requests))
  const durably = (shape: RowShape, clients: Clients): Row =>
    row(shape, async (bench) => durable(bench, ours, clients))
  const lonely = { clients: 1, count: 800 }
  const crowded = { clients: 32, count: 3200 }
  const inline = { inlineWrites: true } as const
  const lone = { count: 60_000, depth: 1, cache: 'writeback', write: true } as const
  const many = { count: 120_000, depth: 32, cache: 'writeback', write: true } as const
  const loneNew = { count: 16_000, depth: 1, cache: 'writeback' } as const
  const manyNew = { count: 32_000, depth: 32, cache: 'writeback' } as const
  const loneDirect = { count: 8000, depth: 1, cache: 'none' } as const
  const loneDirectWrites = { count: 6000, depth: 1, cache: 'none', write: true } as const
  const manyDirect = { count: 40_000, depth: 32, cache: 'none' } as const
  const manyDirectWrites = { count: 30_000, depth: 32, cache: 'none', write: true } as const
  const manyDirectNew = { count: 12_000, depth: 32, cache: 'none' } as const
  const flushed = { count: 6400, depth: 32, cache: 'none', flushInterval: 32 } as const
  const ring = { aio: 'io_uring' } as const
  const waited = { ...ring, inlineWaits: true } as const
  const zeros = { preallocation: 'full' } as const
  const megabytes = { bufferSize: 2 ** 21, cache: 'none', count: 512, depth: 8 } as const
  return [
    there(['1', 'cached 4k read, 1 deep', 3, 6], { count: 120_000, depth: 1, cache: 'writeback' }),
    there(['2', 'cached 4k read, 32 deep', 1.2, 1.6], { count: 250_000, depth: 32, cache: 'writeback' }),
    there(['3', 'cached 4k overwrite, 1 deep', 1.6, 4], lone),
    there(['4', 'cached 4k overwrite, 32 deep', 2, 3.5], many),
    there(['3i', 'cached 4k overwrite, 1 deep, inline', 1.6, 4], { ...lone, ...inline }),
    there(['4i', 'cached 4k overwrite, 32 deep, inline', 2, 3.5], { ...many, ...inline }),
    there(['5r', 'O_DIRECT 4k read, 1 deep', 0.95, 1.1], loneDirect),
    there(['5w', 'O_DIRECT 4k overwrite, 1 deep', 0.95, 1.1], loneDirectWrites),
    there(['6', 'O_DIRECT 4k read, 32 deep', 1.2, 2], manyDirect),
    there(['7', 'O_DIRECT 4k overwrite, 32 deep', 1, 2], manyDirectWrites),
    there(['5ru', 'O_DIRECT 4k read, 1 deep, io_uring', 0.95, 1.1], { ...loneDirect, ...ring }),
    there(['5wu', 'O_DIRECT 4k overwrite, 1 deep, io_uring', 0.95, 1.1], { ...loneDirectWrites, ...ring }),
    there(['5rui', 'O_DIRECT 4k read, 1 deep, io_uring, inline', 0.95, 1.1], { ...loneDirect, ...waited }),
    there(['5wui', 'O_DIRECT 4k overwrite, 1 deep, io_uring, inline', 0.95, 1.1], {
      ...loneDirectWrites,
      ...waited,
    }),
    there(['6u', 'O_DIRECT 4k read, 32 deep, io_uring', 1.2, 2], { ...manyDirect, ...ring }),
    there(['7u', 'O_DIRECT 4k overwrite, 32 deep, io_uring', 1, 2], { ...manyDirectWrites, ...ring }),
    allocating(['8', 'allocating 4k, writeback, 1 deep', 1.8, 5], loneNew),
    allocating(['9', 'allocating 4k, writeback, 32 deep', 2.5, 4.5], manyNew),
    allocating(['8i', 'allocating 4k, writeback, 1 deep, inline', 1.8, 5], { ...loneNew, ...inline }),
    allocating(['9i', 'allocating 4k, writeback, 32 deep, inline', 2.5, 4.5], { ...manyNew, ...inline }),
    allocating(['10', 'allocating 4k, none, 32 deep', 1.4, 3.5], manyDirectNew),
    allocating(['10u', 'allocating 4k, none, 32 deep, io_uring', 1.4, 3.5], { ...manyDirectNew, ...ring }),
    durably(['11', 'durable allocating 4k, 1 client', 1.5, 2], lonely),
    durably(['12', 'durable allocating 4k, 32 clients', 8, 17], crowded),
    durably(['11u', 'durable allocating 4k, 1 client, io_uring', 1.5, 2], { ...lonely, ...ring }),
    durably(['12u', 'durable allocating 4k, 32 clients, io_uring', 8, 17], { ...crowded, ...ring }),
    durably(['11z', 'durable allocating 4k, 1 client, zeros ahead', 1.5, 2], { ...lonely, ...zeros }),
    durably(['12z', 'durable allocating 4k, 32 clients, zeros ahead', 8, 17], { ...crowded, ...zeros }),
    allocating(['13', 'allocating 4k, a flush every 32', 2, 3], flushed),
    allocating(['13u', 'allocating 4k, a flush every 32, io_uring', 2, 3], { ...flushed, ...ring }),
    allocating(['14', 'allocating 64k, writeback, 32 deep', 1, 1.4], {
      count: 10_000,
      depth: 32,
      cache: 'writeback',
      bufferSize: cluster,
    }),
    there(['15r', '2 MiB sequential read, O_DIRECT, 8 deep', 0.95, 1.1], megabytes),
    there(['15w', '2 MiB sequential overwrite, O_DIRECT, 8 deep', 0.95, 1.1], { ...megabytes, write: true }),
    there(['15ru', '2 MiB sequential read, O_DIRECT, 8 deep, io_uring', 0.95, 1.1], {
      ...megabytes,
      ...ring,
    }),
    there(['15wu', '2 MiB sequential overwrite, O_DIRECT, 8 deep, io_uring', 0.95, 1.1], {
      ...megabytes,
      ...ring,
      write: true,
    }),
  ]
}
