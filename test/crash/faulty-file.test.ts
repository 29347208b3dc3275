import { execFileSync, spawnSync } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type CacheMode, createImage, openImage } from '../../lib/index.js'
import { runProgram } from '../support/child.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'
import type { FaultOrder, FaultOutcome } from './faulty-file-guest.js'

// The simulated device stands above the addon's file layer. Here the kernel's calls themselves go wrong, on real files.

const source = new URL('../../../native/test/faulty_calls.cc', import.meta.url).pathname
const isGlibc = process.platform === 'linux' && 'glibcVersionRuntime' in reportHeader()
const canPreload =
  isGlibc &&
  process.env['LD_PRELOAD'] === undefined &&
  spawnSync('c++', ['--version'], { stdio: 'ignore' }).status === 0

/** Every day a few; a full run has more. */
const faults = countOfRun('QCOW2_FILE_FAULTS', 100)

const tail = 'faulty-disk.qcow2'
/** About so many calls a run makes. */
const mostCalls = { pread: 3, pwrite: 50, fallocate: 40, ftruncate: 3 } as const

const caches = ['writeback', 'writethrough'] as const satisfies readonly CacheMode[]

function reportHeader(): object {
  return (process.report.getReport() as { header: object }).header
}

/** Run the orders in a process of their own. */
async function obeyed(t: ExecutionContext, orders: readonly FaultOrder[]): Promise<FaultOutcome[]> {
  const folder = await makeFolder(t, { fast: true })
  const at = (name: string): string => join(folder, name)
  execFileSync('c++', ['-std=c++17', '-shared', '-fPIC', '-o', at('faulty.so'), source])
  await createImage(at('start'), { size: 4 * 1024 * 1024, clusterSize: 4096 })
  {
    // Mapped clusters, and free ones within the file.
    await using image = await openImage(at('start'), { format: 'qcow2' })
    await image.write(new Uint8Array(200 * 1024).fill(1), 2 * 1024 * 1024)
    await image.writeZeroes({ offset: 2 * 1024 * 1024, length: 100 * 1024, unmap: true })
  }
  await writeFile(at('orders'), JSON.stringify(orders))
  const around = [
    'env',
    `LD_PRELOAD=${at('faulty.so')}`,
    `FAULTY_FILE=${tail}`,
    `FAULTY_REPORT=${at('report')}`,
  ]
  const program = new URL('./faulty-file-guest.js', import.meta.url)
  const { code, stderr } = await runProgram(program, [at('orders'), at('start'), at(tail), at('outcomes')], {
    around,
  })
  t.is(code, 0, stderr)
  const outcomes = JSON.parse(await readFile(at('outcomes'), 'utf8')) as FaultOutcome[]
  t.is(outcomes.length, orders.length)
  outcomes.forEach(({ problem }, index) => t.is(problem, undefined, JSON.stringify(orders[index])))
  return outcomes
}

const testFaulty = canPreload ? test.serial : test.serial.skip

testFaulty('interrupted and short system calls are made again and continued: nobody notices', async (t) => {
  const seed = seedOfRun()
  const kinds = [
    ['pread', 'short', 1],
    ['pread', 'EINTR', 2],
    ['pwrite', 'short', 1],
    ['pwrite', 'EINTR', 2],
    ['fdatasync', 'EINTR', 2],
    ['fallocate', 'EINTR', 2],
    ['fallocate', 'EOPNOTSUPP', 1],
    ['ftruncate', 'EINTR', 2],
  ] as const
  const seeds = [0, 1, 2].map((step) => seed + step)
  const orders = kinds.flatMap(([call, error, every]) =>
    caches.flatMap((cache) => seeds.map((seed) => ({ call, error, from: 1, every, cache, seed }))),
  )
  const outcomes = await obeyed(t, orders)
  const hits = new Map<string, number>()
  outcomes.forEach(({ hit, codes }, index) => {
    const { call = '', error = '' } = orders[index] ?? {}
    hits.set(`${call} ${error}`, (hits.get(`${call} ${error}`) ?? 0) + hit)
    t.deepEqual(codes, [], JSON.stringify(orders[index]))
  })
  t.log(`QCOW2_SEED=${seed}: ${[...hits].map(([kind, hit]) => `${hit} ${kind}`).join(', ')}`)
  for (const [call, error] of kinds) t.true((hits.get(`${call} ${error}`) ?? 0) > 0, `${call} ${error}`)
  t.true(outcomes.every(({ promises }) => promises > 0))
})

testFaulty(
  'whatever system call fails, once or for ever, the error is clean and nothing is lost',
  async (t) => {
    t.timeout(30 * 60_000)
    const seed = seedOfRun()
    t.log(`QCOW2_SEED=${seed}`)
    const random = new SeededRandom(seed)
    const orders = Array.from({ length: faults }, (_, index): FaultOrder => {
      const call = random.pick(['pwrite', 'pwrite', 'pwrite', 'pread', 'fallocate', 'ftruncate'] as const)
      const error = random.pick(['EIO', 'ENOSPC', 'EDQUOT', 'EAGAIN'] as const)
      const from = 1 + random.integer(mostCalls[call])
      return { call, error, from, every: index % 2, cache: random.pick(caches), seed: seed + index }
    })
    const outcomes = await obeyed(t, orders)
    const hits = outcomes.reduce((sum, { hit }) => sum + hit, 0)
    const runs = outcomes.filter(({ hit }) => hit > 0)
    t.log(`${hits} calls failed in ${runs.length} of ${outcomes.length} runs`)
    t.true(runs.length > faults / 3, `${runs.length} runs`)
    t.true(runs.filter(({ codes }) => codes.length > 0).length > runs.length / 3, 'failures are told of')
    t.true(outcomes.some(({ promises, codes }) => codes.length > 0 && promises > 0))
  },
)

testFaulty('a sync that fails is never made again, and no flush succeeds behind it', async (t) => {
  t.timeout(30 * 60_000)
  const seed = seedOfRun()
  t.log(`QCOW2_SEED=${seed}`)
  const orders = Array.from({ length: Math.ceil(faults / 4) }, (_, index): FaultOrder => {
    const error = index % 3 === 0 ? 'ENOSPC' : 'EIO'
    return {
      call: 'fdatasync',
      error,
      from: 1 + (index % 10),
      every: 0,
      cache: 'writeback',
      seed: seed + index,
    }
  })
  const outcomes = await obeyed(t, orders)
  let failed = 0
  outcomes.forEach(({ hit, seen, codes, lies }, index) => {
    const order = JSON.stringify(orders[index])
    if (hit === 0) return
    failed++
    t.is(seen, orders[index]?.from ?? 0, `no sync comes after the one that failed: ${order}`)
    t.is(lies, 0, order)
    t.true(codes.length > 0, order)
  })
  t.true(failed > orders.length / 2, `${failed} syncs failed`)
})
