/**
 * Measures what the project promises of syncs, memory and opening times, each in a process of its own, and prints it beside the goal.
 * Usage: node scripts/figures.mjs   (after a build; needs strace; a minute or two)
 */
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createImage } from '../dist/lib/index.js'

const workloads = fileURLToPath(new URL('../dist/test/figures/workloads.js', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'qcow2-figures-'))
// A hundred thousand scattered clusters: some file systems take minutes to delete such a file.
const memoryFolder = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'qcow2-figures-'))
const GiB = 1024 ** 3

function run(name, path) {
  return JSON.parse(execFileSync(process.execPath, [workloads, name, path], { encoding: 'utf8' }))
}

function syncs(name) {
  const trace = join(folder, 'trace')
  const calls = 'trace=fdatasync,fsync,access,faccessat,faccessat2'
  const path = join(folder, `${name}.qcow2`)
  execFileSync('strace', ['-f', '-qq', '-o', trace, '-e', calls, process.execPath, workloads, name, path])
  const lines = readFileSync(trace, 'utf8').split('\n')
  const begin = lines.findIndex((line) => line.includes('/figures-begin'))
  const end = lines.findIndex((line) => line.includes('/figures-end'))
  return lines.slice(begin, end).filter((line) => /\bf(data)?sync\(/.test(line)).length
}

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

const row = (figure, goal, reached) => process.stdout.write(`${figure}: ${reached} (goal ${goal})\n`)

try {
  row('syncs, 1000 allocating writes 32 deep and a flush', '<= 5', syncs('sequentialAllocation'))
  row('syncs, 32 concurrent flushes', '<= 2', syncs('concurrentFlushes'))
  row('syncs, 64 writers, 1000 writes each with its flush', '<= 130', syncs('flushingWriters'))
  const memory = run('memory', join(memoryFolder, 'memory.qcow2'))
  row(
    'peak memory growth, 100,000 random writes in 1 TiB',
    '<= 64 MiB',
    `${memory.growth} MiB (${memory.seconds.toFixed(1)} s)`,
  )
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
} finally {
  rmSync(folder, { recursive: true })
  rmSync(memoryFolder, { recursive: true })
}
