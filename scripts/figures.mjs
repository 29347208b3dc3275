/**
 * Measures what the project promises of syncs, memory and opening times, each in a process of its own, and prints it beside the goal.
 * Usage: node scripts/figures.mjs   (after a build; needs strace and qemu-utils; a minute or two)
 */
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createImage } from '../dist/lib/index.js'
import {
  callsOf,
  countSyncs,
  metadataBytes,
  slowSyncs,
  stockDurableCalls,
  stockPairCalls,
} from '../dist/test/figures/traces.js'

const workloads = fileURLToPath(new URL('../dist/test/figures/workloads.js', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'qcow2-figures-'))
// A hundred thousand scattered clusters: some file systems take minutes to delete such a file.
const memoryFolder = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'qcow2-figures-'))
const GiB = 1024 ** 3

function run(name, path) {
  return JSON.parse(execFileSync(process.execPath, [workloads, name, path], { encoding: 'utf8' }))
}

const syncs = (name, options) => countSyncs(callsOf(folder, name, options))

/** A disk of 64 TiB whose L1 table is full: 131,072 L2 tables, in holes of the file, counted by four refcount blocks. */
async function withAllTables(path) {
  const cluster = 65536
  await createImage(path, { size: 65536 * GiB })
  const file = openSync(path, 'r+')
  const readAt = (offset, length) => {
    const bytes = Buffer.alloc(length)
    readSync(file, bytes, 0, length, offset)
    return bytes
  }
  const header = readAt(0, 112)
  const l1Offset = Number(header.readBigUInt64BE(40))
  const l1Entries = header.readUInt32BE(36)
  const refcountTableOffset = Number(header.readBigUInt64BE(48))
  const firstTable = 1024
  const l1 = Buffer.alloc(l1Entries * 8)
  for (let index = 0; index < l1Entries; index++) {
    l1.writeBigUInt64BE((1n << 63n) | BigInt((firstTable + index) * cluster), index * 8)
  }
  ftruncateSync(file, (firstTable + l1Entries) * cluster)
  writeSync(file, l1, 0, l1.length, l1Offset)
  const firstBlock = Number(readAt(refcountTableOffset, 8).readBigUInt64BE())
  const perBlock = cluster / 2
  const table = Buffer.alloc(8 * Math.ceil((firstTable + l1Entries) / perBlock))
  for (let index = 0; index * 8 < table.length; index++) {
    const host = index === 0 ? firstBlock : (firstTable - 16 + index) * cluster
    table.writeBigUInt64BE(BigInt(host), index * 8)
    const counts = index === 0 ? readAt(firstBlock, cluster) : Buffer.alloc(cluster)
    for (let entry = 0; entry < perBlock; entry++) {
      const number = index * perBlock + entry
      const isTable = number >= firstTable && number < firstTable + l1Entries
      const isBlock = number > firstTable - 16 && number < firstTable - 16 + table.length / 8
      if (isTable || isBlock) counts.writeUInt16BE(1, entry * 2)
    }
    writeSync(file, counts, 0, cluster, host)
  }
  writeSync(file, table, 0, table.length, refcountTableOffset)
  closeSync(file)
}

/** @param stock  what qemu-img or qemu-io did, where there is such a thing */
const row = (figure, goal, reached, stock) =>
  process.stdout.write(
    `${figure}: ${reached} (goal ${goal}${stock === undefined ? '' : `; QEMU ${stock}`})\n`,
  )

/** As `row`; what is above its goal turns the exit status to 1. Times are only told: they are as much the machine's. */
function limit(figure, most, reached, stock, unit = '') {
  row(figure, `<= ${most}${unit}`, `${reached}${unit}`, stock)
  if (reached <= most) return
  process.stdout.write('  FAILED: above its goal\n')
  process.exitCode = 1
}

try {
  limit('syncs, 1000 allocating writes 32 deep and a flush', 5, syncs('sequentialAllocation'))
  limit('syncs, 32 concurrent flushes', 2, syncs('concurrentFlushes'))
  limit('syncs, 64 writers, 1000 writes each with its flush', 130, syncs('flushingWriters'))
  const writers = syncs('flushingWriters', slowSyncs)
  limit(
    'Q1: syncs, 1000 durable allocating writes, 64 in flight, a sync takes 5 ms',
    40,
    writers,
    countSyncs(stockDurableCalls(folder, 64, slowSyncs)),
  )
  const alone = callsOf(folder, 'durableWriter')
  const stockAlone = stockDurableCalls(folder, 1)
  const stockLazy = countSyncs(stockDurableCalls(folder, 1, [], ['-o', 'lazy_refcounts=on']))
  limit(
    'Q1b: the same, 1 in flight',
    1020,
    countSyncs(alone),
    `${countSyncs(stockAlone)}, with lazy refcounts ${stockLazy}`,
  )
  limit(
    'Q2: syncs, 200 pairs of allocating write and discard, one flush',
    6,
    syncs('allocateAndDiscard'),
    countSyncs(stockPairCalls(folder)),
  )
  limit(
    'Q3: bytes of metadata for each write of Q1b',
    8192,
    metadataBytes(alone, 1000),
    metadataBytes(stockAlone, 1000),
  )
  const memory = run('memory', join(memoryFolder, 'memory.qcow2'))
  limit(
    `peak memory growth, 100,000 random writes in 1 TiB (${memory.seconds.toFixed(1)} s)`,
    64,
    memory.growth,
    undefined,
    ' MiB',
  )
  const stalled = JSON.parse(
    execFileSync(
      'strace',
      [
        '-f',
        '-qq',
        '-o',
        join(folder, 'trace'),
        '-e',
        'trace=fdatasync',
        '-e',
        'inject=fdatasync:delay_enter=10000000',
        process.execPath,
        workloads,
        'stalledDevice',
        join(folder, 'stalled.qcow2'),
      ],
      { encoding: 'utf8' },
    ),
  )
  const stall = 'Q7: a sync that takes 10 s'
  limit(`${stall}: most bytes in the queue`, 4194304, stalled.queuedBytesPeak)
  limit(`${stall}: writes that end meanwhile, once it is full`, 0, stalled.meanwhile)
  limit(`${stall}: growth of memory meanwhile`, 64, stalled.growth, undefined, ' MiB')
  row(`${stall}: reads meanwhile`, '> 0', stalled.reads)
  if (!(stalled.reads > 0 && stalled.written > 0 && stalled.syncsIssued === 1)) process.exitCode = 1
  const empty = join(folder, 'empty.qcow2')
  await createImage(empty, { size: 65536 * GiB })
  const opened = run('opening', empty)
  row(
    'opening an empty image of 64 TiB',
    '< 50 ms, < 16 MiB',
    `${opened.milliseconds.toFixed(1)} ms, ${opened.growth} MiB`,
  )
  const full = join(folder, 'full.qcow2')
  await withAllTables(full)
  const openedFull = run('opening', full)
  row(
    'opening it with 131,072 L2 tables',
    '< 50 ms, < 16 MiB',
    `${openedFull.milliseconds.toFixed(1)} ms, ${openedFull.growth} MiB`,
  )
  const small = join(folder, 'small-clusters.qcow2')
  await createImage(small, { size: 64 * GiB, clusterSize: 512 })
  const openedSmall = run('opening', small)
  row(
    'opening 64 GiB in clusters of 512 bytes',
    '< 1 s, < 64 MiB',
    `${openedSmall.milliseconds.toFixed(1)} ms, ${openedSmall.growth} MiB`,
  )
  const begun = performance.now()
  const refusal = await createImage(join(folder, 'refused.qcow2'), {
    size: 1024 * GiB,
    clusterSize: 512,
  }).then(
    () => undefined,
    (error) => error.message,
  )
  if (refusal === undefined) process.exitCode = 1
  row('1 TiB of them is refused', '< 1 s', `${(performance.now() - begun).toFixed(1)} ms: ${refusal}`)
  const link = (depth) => join(folder, `chain-${depth}.qcow2`)
  await createImage(link(0), { size: GiB })
  for (let depth = 1; depth < 200; depth++) {
    await createImage(link(depth), { backingFile: link(depth - 1), backingFormat: 'qcow2' })
  }
  const openedChain = run('opening', link(199))
  row(
    'opening a chain of 200 images',
    '< 1 s, < 320 MiB',
    `${openedChain.milliseconds.toFixed(1)} ms, ${openedChain.growth} MiB`,
  )
} finally {
  rmSync(folder, { recursive: true })
  rmSync(memoryFolder, { recursive: true })
}
