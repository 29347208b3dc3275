import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { addon } from '../../lib/native/addon.js'
import { SeededRandom } from '../support/seeded-random.js'
import { type OurProcess, runAlone } from './our-process.js'
import type { Bench, Prepared, Row, Side } from './row.js'
import { idleMiB, peakMiB, run, timed } from './stock.js'

const mebibyte = 2 ** 20

/**
 * A raw disk as machines have them: thirds of holes, of bytes that do not compress and of text, in runs of 64 KiB to 4 MiB.
 * @param bytes  its size, whole MiB
 */
async function mixedDisk(path: string, bytes: number): Promise<string> {
  const random = new SeededRandom(16)
  const text = Buffer.alloc(4 * mebibyte)
  for (let offset = 0; offset < text.length;) {
    offset += text.write(
      `${random.integer(1000)} of ${random.integer(100_000)} packages set up, ${offset} bytes\n`,
      offset,
    )
  }
  const noise = Buffer.from(random.bytes(4 * mebibyte))
  const file = await open(path, 'w')
  try {
    await file.truncate(bytes)
    for (let offset = 0; offset < bytes;) {
      const length = Math.min(65536 * (1 + random.integer(64)), bytes - offset)
      const kind = random.integer(3)
      if (kind > 0) await file.write(kind === 1 ? noise : text, 0, length, offset)
      offset += length
    }
    await file.sync()
  } finally {
    await file.close()
  }
  return path
}

/** The size of what is converted, bytes. */
const sizeOf = (bench: Bench, mebibytes: number): number =>
  Math.max(16, Math.round(mebibytes * bench.share)) * mebibyte

/** Both end with a sync of the target, so that what they took is for the same. */
async function convert(
  bench: Bench,
  ours: OurProcess,
  how: {
    readonly mebibytes: number
    readonly from: string[]
    readonly to: 'raw' | 'qcow2'
    readonly compression?: 'zlib' | 'zstd'
  },
): Promise<Prepared> {
  const { mebibytes, from, to, compression } = how
  const disk = await mixedDisk(join(bench.folder, 'mixed.raw'), sizeOf(bench, mebibytes))
  const source = from.length === 0 ? disk : join(bench.folder, 'source.qcow2')
  if (source !== disk) await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', ...from, disk, source)
  const target = join(bench.folder, 'target')
  const words = ['-T', 'writeback', '-t', 'writeback', '-f', source === disk ? 'raw' : 'qcow2', '-O', to]
  const compressing = compression === undefined ? [] : ['-c', '-o', `compression_type=${compression}`]
  const stock =
    (...more: string[]): Side =>
    async () => {
      await rm(target, { force: true })
      return await timed('qemu-img', 'convert', ...words, ...compressing, ...more, source, target)
    }
  return {
    ours: async () => {
      await rm(target, { force: true })
      const compress = compression === undefined ? {} : { compress: true, compressionType: compression }
      const options = { format: to, sourceFormat: source === disk ? 'raw' : 'qcow2', ...compress } as const
      return await ours.run({ work: 'convert', source, target, options })
    },
    stock: { 'in order': stock(), '-W': stock('-W') },
  }
}

/** Works of milliseconds are done so many times for one figure, by both sides. */
const timesOfShortWork = 10

/** A verb in process, against the process that one would have to start. */
async function verb(bench: Bench, ours: OurProcess, work: 'info' | 'map' | 'check'): Promise<Prepared> {
  const disk = await mixedDisk(join(bench.folder, 'mixed.raw'), sizeOf(bench, 512))
  const path = join(bench.folder, 'image.qcow2')
  await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', disk, path)
  return {
    ours: () => ours.run({ work, path, times: timesOfShortWork }),
    first: () => runAlone({ work, path }),
    stock: {
      process: async () => {
        let milliseconds = 0
        for (let run = 0; run < timesOfShortWork; run++)
          milliseconds += await timed('qemu-img', work, '-f', 'qcow2', path)
        return milliseconds / timesOfShortWork
      },
    },
  }
}

/** All clusters of it are mapped; their bytes are holes in the file. */
async function largeImage(bench: Bench): Promise<string> {
  const path = join(bench.folder, 'large.qcow2')
  const clusters = Math.max(4096, Math.round(2 ** 20 * bench.share))
  const options = 'preallocation=metadata,cluster_size=65536'
  await run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, path, String(clusters * 65536))
  return path
}

/** Every request far from the one before: a table that is not in the cache. */
const scattered = { bufferSize: 4096, step: 2 ** 30 + 3 * 4096, depth: 32 }

async function memoryOfRequests(bench: Bench): Promise<Prepared> {
  const path = join(bench.folder, 'huge.qcow2')
  const count = Math.max(2000, Math.round(40_000 * bench.share))
  const empty = async (): Promise<void> => {
    await rm(path, { force: true })
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', path, '1T')
  }
  const idle = await idleMiB()
  const words = ['-w', '-c', count, '-d', scattered.depth, '-s', scattered.bufferSize, '-S', scattered.step]
  return {
    ours: async () => {
      await empty()
      const options = { ...scattered, count, format: 'qcow2', write: true, cache: 'writeback' } as const
      return await runAlone({ work: 'memory of requests', path, options })
    },
    stock: {
      threads: async () => {
        await empty()
        return (
          (await peakMiB('qemu-img', 'bench', '-f', 'qcow2', '-t', 'writeback', ...words.map(String), path)) -
          idle
        )
      },
    },
  }
}

async function memoryOfCheck(bench: Bench): Promise<Prepared> {
  const path = await largeImage(bench)
  const idle = await idleMiB()
  return {
    ours: () => runAlone({ work: 'memory of check', path }),
    stock: { process: async () => (await peakMiB('qemu-img', 'check', '-q', '-f', 'qcow2', path)) - idle },
  }
}

/** Rows 16 to 19 of the table. @param ours  the process in which our side runs, but where memory is measured */
export function longWorkRows(ours: OurProcess): Row[] {
  const row = (
    name: string,
    work: string,
    [floor, goal]: readonly [floor: number, goal: number],
    prepare: Row['prepare'],
    unit: Row['unit'] = 'ms',
  ): Row => ({ name, work, unit, measure: 'stock / ours', floor, goal, prepare })
  const few = { mostPairs: 5 }
  const hasZstd = addon().codecs.zstd()
  return [
    {
      ...row('16w', 'convert raw to qcow2, 2 GiB mixed', [0.9, 1.3], (bench) =>
        convert(bench, ours, { mebibytes: 2048, from: [], to: 'qcow2' }),
      ),
      ...few,
    },
    {
      ...row('16r', 'convert qcow2 to raw, 2 GiB mixed', [0.9, 1.3], (bench) =>
        convert(bench, ours, { mebibytes: 2048, from: ['-q'], to: 'raw' }),
      ),
      ...few,
    },
    {
      ...row('17w', 'convert -c, zlib', [0.9, 1.5], (bench) =>
        convert(bench, ours, { mebibytes: 256, from: [], to: 'qcow2', compression: 'zlib' }),
      ),
      ...few,
    },
    ...(hasZstd
      ? [
          {
            ...row('17zw', 'convert -c, zstd', [0.9, 1.5], (bench) =>
              convert(bench, ours, { mebibytes: 256, from: [], to: 'qcow2', compression: 'zstd' }),
            ),
            ...few,
          },
        ]
      : []),
    row('17r', 'read back compressed clusters, zlib', [0.9, 1.5], (bench) =>
      convert(bench, ours, { mebibytes: 512, from: ['-c'], to: 'raw' }),
    ),
    row('17zr', 'read back compressed clusters, zstd', [0.9, 1.5], (bench) =>
      convert(bench, ours, { mebibytes: 512, from: ['-c', '-o', 'compression_type=zstd'], to: 'raw' }),
    ),
    row('18i', 'info, in process', [3, 10], (bench) => verb(bench, ours, 'info')),
    row('18m', 'map, in process', [3, 10], (bench) => verb(bench, ours, 'map')),
    row('18c', 'check, in process', [3, 10], (bench) => verb(bench, ours, 'check')),
    // Beside 18c, which mostly measures how a process starts: there is no target for it.
    row('18l', 'check of 1 M clusters, in process', [1, 1], async (bench) => {
      const path = await largeImage(bench)
      return {
        ours: () => ours.run({ work: 'check', path }),
        stock: { process: () => timed('qemu-img', 'check', '-q', '-f', 'qcow2', path) },
      }
    }),
    { ...row('19', 'peak memory, 1 TiB, scattered writes', [1, 2], memoryOfRequests, 'MiB'), ...few },
    { ...row('19c', 'peak memory of check, 1 M clusters', [1, 2], memoryOfCheck, 'MiB'), ...few },
  ]
}
