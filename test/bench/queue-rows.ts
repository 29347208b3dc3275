import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import {
  callsOf,
  countSyncs,
  metadataBytes,
  slowSyncs,
  stockDurableCalls,
  stockPairCalls,
} from '../figures/traces.js'
import type { OurProcess } from './our-process.js'
import type { Bench, Prepared, Row, Side } from './row.js'
import { run, stockBench } from './stock.js'

async function empty(path: string, format = 'qcow2'): Promise<string> {
  await rm(path, { force: true })
  await run('qemu-img', 'create', '-q', '-f', format, path, '1G')
  return path
}

/** What it costs, as the kernel sees it, whatever the clock says. */
const counted = (ours: () => number, stock: Record<string, () => number>): Prepared => ({
  ours: async () => ours(),
  stock: Object.fromEntries(
    Object.entries(stock).map(([mode, count]): [string, Side] => [mode, async () => count()]),
  ),
})

/** How much slower it is to allocate than to overwrite, for eight clients who wait for every write: the one throughput divided by the other. */
async function allocatingShare(bench: Bench, ours: OurProcess): Promise<Prepared> {
  const path = join(bench.folder, 'share.qcow2')
  const count = Math.max(64, Math.round(1600 * bench.share))
  const words = ['-w', '-c', String(count), '-d', '8', '-s', '4096', '-S', '65536', '-t', 'directsync']
  const clients = { work: 'durable clients', path, clients: 8, count, cache: 'none' } as const
  return {
    ours: async () => {
      await empty(path)
      const allocating = await ours.run(clients)
      return (await ours.run(clients)) / allocating
    },
    stock: {
      directsync: async () => {
        await empty(path)
        const allocating = await stockBench(path, ...words)
        return (await stockBench(path, ...words)) / allocating
      },
    },
  }
}

/** The throughput of 32 durable writers divided by that of one. */
async function manyWriters(bench: Bench, ours: OurProcess): Promise<Prepared> {
  const path = join(bench.folder, 'writers.qcow2')
  const count = Math.max(64, Math.round(640 * bench.share))
  const ofOurs = async (clients: number): Promise<number> =>
    (await ours.run({ work: 'durable clients', path: await empty(path), clients, count, cache: 'none' })) /
    count
  const ofStock = async (depth: number): Promise<number> => {
    const words = [
      '-w',
      '-c',
      String(count),
      '-d',
      String(depth),
      '-s',
      '4096',
      '-S',
      '65536',
      '-t',
      'directsync',
    ]
    return (await stockBench(await empty(path), ...words)) / count
  }
  return {
    ours: async () => (await ofOurs(1)) / (await ofOurs(32)),
    stock: { directsync: async () => (await ofStock(1)) / (await ofStock(32)) },
  }
}

/** How long the slowest reads take beside eight writers who flush, divided by the same in a raw file. */
async function readLatency(bench: Bench, ours: OurProcess): Promise<Prepared> {
  const count = Math.max(500, Math.round(4000 * bench.share))
  const paths = {
    qcow2: join(bench.folder, 'latency.qcow2'),
    raw: join(bench.folder, 'latency.raw'),
  } as const
  for (const [format, path] of Object.entries(paths)) {
    await run('qemu-img', 'create', '-q', '-f', format, '-o', 'preallocation=full', path, '256M')
  }
  const slowest = (format: 'qcow2' | 'raw'): Promise<number> =>
    ours.run({ work: 'read latency', path: paths[format], format, count })
  return { ours: async () => (await slowest('qcow2')) / (await slowest('raw')), stock: {} }
}

/** Q1 to Q6 of the queue's figures; Q7 is a limit, held by scripts/figures.mjs, and Q8 the explorer's. */
export function queueRows(ours: OurProcess): Row[] {
  const once = { mostPairs: 1, measure: 'ours at most' } as const
  const several = { mostPairs: 5, unit: 'ratio' } as const
  return [
    {
      ...once,
      name: 'Q1',
      work: 'syncs, 1000 durable allocating writes, 64 in flight, a sync takes 5 ms',
      unit: 'syncs',
      floor: 40,
      goal: 40,
      prepare: async ({ folder }) =>
        counted(() => countSyncs(callsOf(folder, 'flushingWriters', slowSyncs)), {
          directsync: () => countSyncs(stockDurableCalls(folder, 64, slowSyncs)),
        }),
    },
    {
      ...once,
      name: 'Q1b',
      work: 'syncs, the same, one in flight',
      unit: 'syncs',
      floor: 1020,
      goal: 1020,
      prepare: async ({ folder }) =>
        counted(() => countSyncs(callsOf(folder, 'durableWriter')), {
          directsync: () => countSyncs(stockDurableCalls(folder, 1)),
          'lazy refcounts': () => countSyncs(stockDurableCalls(folder, 1, [], ['-o', 'lazy_refcounts=on'])),
        }),
    },
    {
      ...once,
      name: 'Q2',
      work: 'syncs, 200 pairs of allocating write and discard, one flush',
      unit: 'syncs',
      floor: 6,
      goal: 6,
      prepare: async ({ folder }) =>
        counted(() => countSyncs(callsOf(folder, 'allocateAndDiscard')), {
          'qemu-io': () => countSyncs(stockPairCalls(folder)),
        }),
    },
    {
      ...once,
      name: 'Q3',
      work: 'bytes of metadata for each durable allocating write',
      unit: 'bytes',
      floor: 8192,
      goal: 8192,
      prepare: async ({ folder }) =>
        counted(() => metadataBytes(callsOf(folder, 'durableWriter'), 1000), {
          directsync: () => metadataBytes(stockDurableCalls(folder, 1), 1000),
        }),
    },
    {
      ...several,
      name: 'Q4',
      work: 'durable allocating / durable overwriting throughput, 8 clients',
      measure: 'ours at least',
      floor: 0.6,
      goal: 0.6,
      prepare: (bench) => allocatingShare(bench, ours),
    },
    {
      ...several,
      name: 'Q5',
      work: 'durable allocating throughput, 32 clients / 1 client',
      measure: 'ours at least',
      floor: 4,
      goal: 4,
      prepare: (bench) => manyWriters(bench, ours),
    },
    {
      ...several,
      name: 'Q6',
      work: 'O_DIRECT read latency p99 beside 8 flushing writers, qcow2 / raw',
      measure: 'ours at most',
      floor: 1.5,
      goal: 1.5,
      prepare: (bench) => readLatency(bench, ours),
    },
  ]
}
