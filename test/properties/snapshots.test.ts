import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { DiskModel } from '../support/disk-model.js'
import { closeAndCheck, runStep, steps } from '../support/disk-plans.js'
import { openDisk } from '../support/qcow2-disk.js'
import { qemuCheck, qemuImg, qemuIo } from '../support/qemu.js'
import { countOfRun, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

const runs = countOfRun('QCOW2_PROPERTY_RUNS', 10)
const seed = seedOfRun()

type Original = { readonly file: Uint8Array; readonly disk: Uint8Array; readonly size: number }

/** An image with a snapshot in the middle of its life: clusters shared, compressed, zero and our own, in tables of all kinds. */
async function makeOriginal(t: ExecutionContext, clusterSize: number): Promise<Original> {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk.qcow2')
  const clusters = 90
  const size = clusters * clusterSize + 512
  const at = (cluster: number): number => cluster * clusterSize
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', `cluster_size=${clusterSize}`, path, String(size))
  const compressed = (first: number, count: number): string[] =>
    Array.from(
      { length: count },
      (_, index) => `write -q -c -P ${10 + index} ${at(first + index)} ${clusterSize}`,
    )
  await qemuIo(path, [
    `write -q -P 1 0 ${at(20)}`,
    ...compressed(20, 20),
    `write -q -z ${at(40)} ${at(5)}`,
    `write -q -P 2 ${at(70)} ${at(20) + 512}`,
  ])
  await qemuImg('snapshot', '-c', 'before', path)
  await qemuIo(path, [
    `write -q -P 3 ${at(5)} ${at(3)}`,
    `write -q -P 4 ${at(50)} ${at(3)}`,
    ...compressed(55, 5),
    `write -q -z -u ${at(75)} ${at(2)}`,
  ])
  const raw = join(folder, 'disk.raw')
  await qemuImg('convert', '-O', 'raw', path, raw)
  return { file: await readFile(path), disk: await readFile(raw), size }
}

/** What the snapshot's guest would see, by the stock tool. */
async function snapshotBytes(folder: string, file: Uint8Array): Promise<Buffer> {
  const path = join(folder, 'after.qcow2')
  const raw = join(folder, 'after.raw')
  await writeFile(path, file)
  try {
    const problem = await qemuCheck(path)
    if (problem !== '') throw new Error(problem)
    await qemuImg('convert', '-l', 'snapshot.name=before', '-O', 'raw', path, raw)
    return await readFile(raw)
  } finally {
    await rm(path, { force: true })
    await rm(raw, { force: true })
  }
}

for (const clusterSize of [512, 4096, 65536]) {
  test(`requests to a disk with a snapshot and compressed clusters read back, and leave the snapshot as it was, clusters of ${clusterSize}`, async (t) => {
    t.timeout(24 * 3600 * 1000)
    t.log(`QCOW2_SEED=${seed} QCOW2_PROPERTY_RUNS=${runs}`)
    const original = await makeOriginal(t, clusterSize)
    const folder = await makeFolder(t)
    const before = await snapshotBytes(folder, original.file)
    const property = fc.asyncProperty(
      steps(clusterSize),
      fc.record({ tinyCaches: fc.boolean(), diskSeed: fc.nat(), writethrough: fc.boolean() }),
      async (planned, { tinyCaches, diskSeed, writethrough }) => {
        const disk = await openDisk(SparseBytes.from(original.file), {
          syncPolicy: writethrough ? 'write' : 'flush',
          ...(tinyCaches ? { l2CacheBytes: 0, refcountCacheBytes: 0 } : {}),
          memory: { seed: diskSeed },
        })
        const model = new DiskModel(original.disk.slice(), { clusterSize, version: 3, backingSize: 0 })
        for (const step of planned) if (step.kind !== 'resize') await runStep(disk, model, step, clusterSize)
        await model.mustEqual(disk, 'at the end')
        await closeAndCheck(disk)
        const after = await snapshotBytes(folder, disk.memory.snapshot())
        if (!after.equals(before)) throw new Error('the snapshot has changed')
      },
    )
    await fc.assert(property, { seed, numRuns: runs })
    t.pass()
  })
}
