import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { SequenceRun } from '../support/sequence.js'
import { makeFolder } from '../support/temp-folder.js'

/** Every day some hundreds; QCOW2_SEQUENCES=2000 or more for a full run. */
const sequences = countOfRun('QCOW2_SEQUENCES', 150)
const seed = seedOfRun()

/** Sequences at a time: while one waits for the stock tool, another runs. */
const lanes = 3

type Folders = { readonly onDisk: string; readonly inMemory: string }

/** Run sequence `index` of this run in a folder of its own. The same seed does the same again. */
async function runSequence(folders: Folders, index: number, mixed: boolean): Promise<void> {
  const random = new SeededRandom((seed + index) >>> 0)
  // File systems differ in alignment and holes.
  const own = join(random.chance(1 / 8) ? folders.onDisk : folders.inMemory, String(index))
  await mkdir(own)
  let run: SequenceRun | undefined
  try {
    run = await SequenceRun.begin(own, random, mixed || random.chance(0.2) ? 'qemu' : 'ours')
    if (mixed) await run.phase('qemu', random.between(3, 12))
    await run.phase('ours', random.between(4, 24))
    if (mixed) {
      await run.phase('qemu', random.between(3, 12))
      await run.phase('ours', random.between(2, 8))
    }
  } catch (error) {
    const replay = `QCOW2_SEED=${seed + index} QCOW2_SEQUENCES=1 npx ava dist/test/oracle/sequences.test.js`
    const story = run?.log.map((line) => `  ${line}`).join('\n') ?? ''
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error)
    throw new Error(`replay: ${replay}\n${message}\n${story}`, { cause: error })
  }
  // What failed stays for a look until the test's folder goes.
  await rm(own, { recursive: true })
}

async function runAll(t: ExecutionContext, mixed: boolean): Promise<void> {
  t.timeout(24 * 3600 * 1000)
  t.log(`QCOW2_SEED=${seed}, ${sequences} sequences`)
  const folders = { onDisk: await makeFolder(t), inMemory: await makeFolder(t, { fast: true }) }
  let next = 0
  const lane = async (): Promise<void> => {
    for (;;) {
      const index = next++
      if (index >= sequences) return
      await runSequence(folders, index, mixed)
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
  t.pass()
}

test('what random operations leave behind equals a byte array, for us and for qemu-img, and checks clean', (t) =>
  runAll(t, false))

test('what qemu-io and we write in turn equals a byte array, for us and for qemu-img, and checks clean', (t) =>
  runAll(t, true))
