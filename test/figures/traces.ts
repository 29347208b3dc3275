import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const workloads = fileURLToPath(new URL('workloads.js', import.meta.url))

/** However fast the disk is, a sync takes 5 ms: so that the count does not depend on it. Options of strace. */
export const slowSyncs: readonly string[] = ['-e', 'inject=fdatasync:delay_enter=5000']

/** System calls of one command, one a line. @param options  more of strace's */
function traced(folder: string, command: readonly string[], options: readonly string[]): string[] {
  const trace = join(folder, 'trace')
  const calls = 'trace=fdatasync,fsync,pwrite64,pwritev,pwritev2,access,faccessat,faccessat2'
  execFileSync('strace', ['-f', '-qq', '-o', trace, '-e', calls, ...options, ...command], {
    stdio: ['pipe', 'ignore', 'inherit'],
  })
  return readFileSync(trace, 'utf8').split('\n')
}

/** How many of these calls make bytes durable. */
export const countSyncs = (calls: readonly string[]): number =>
  calls.filter((line) => /\bf(data)?sync\(/.test(line)).length

/** Bytes of each request's share of all writes but the guest's own, which are 4 KiB and as many as `requests`. */
export function metadataBytes(calls: readonly string[], requests: number): number {
  let bytes = 0
  for (const line of calls) {
    // What another thread interrupted tells its outcome on a line of its own.
    const outcome = /(?:pwrite64|pwritev2?)(?:\(| resumed).*= (\d+)$/.exec(line)
    if (outcome !== null) bytes += Number(outcome[1])
  }
  return Math.round((bytes - requests * 4096) / requests)
}

/** The calls of one of the workloads (workloads.ts), of what it does between its marks. */
export function callsOf(folder: string, name: string, options: readonly string[] = []): string[] {
  const path = join(folder, `${name}.qcow2`)
  rmSync(path, { force: true })
  const calls = traced(folder, [process.execPath, workloads, name, path], options)
  const begin = calls.findIndex((line) => line.includes('/figures-begin'))
  const end = calls.findIndex((line) => line.includes('/figures-end'))
  if (begin < 0 || end < begin) throw new Error(`the workload ${name} left no marks in the trace`)
  return calls.slice(begin, end)
}

/** An image whose first table is there, for the stock tool. */
function stockImage(folder: string, create: readonly string[], commands: readonly string[] = []): string {
  const path = join(folder, 'stock.qcow2')
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...create, path, '1G'])
  execFileSync('qemu-io', ['-f', 'qcow2', path], { input: ['write -q 0 4k', ...commands, ''].join('\n') })
  return path
}

/** The stock tool's calls for 1000 durable allocating writes. @param create  options of the image */
export function stockDurableCalls(
  folder: string,
  depth: number,
  options: readonly string[] = [],
  create: readonly string[] = [],
): string[] {
  const path = stockImage(folder, create)
  const words = ['-w', '-c', '1000', '-d', String(depth), '-s', '4096', '-S', '65536', '-t', 'directsync']
  return traced(folder, ['qemu-img', 'bench', ...words, '-f', 'qcow2', path], options)
}

/** The stock tool's calls for 200 pairs of an allocating write and a discard elsewhere. */
export function stockPairCalls(folder: string): string[] {
  const mapped = Array.from({ length: 200 }, (_, index) => `write -q ${(5000 + index) * 65536} 64k`)
  const path = stockImage(folder, [], mapped)
  const script = join(folder, 'pairs')
  const pairs = mapped.flatMap((line, index) => [
    `write -q ${(index + 1) * 65536} 4k`,
    line.replace('write', 'discard'),
  ])
  writeFileSync(script, [...pairs, 'flush', ''].join('\n'))
  return traced(folder, ['sh', '-c', `qemu-io -f qcow2 -t none -d unmap ${path} < ${script}`], [])
}
