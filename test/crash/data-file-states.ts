import { sectorSize } from '../../lib/base/units.js'
import { checkQcow2 } from '../../lib/qcow2/check.js'
import { openQcow2 } from '../../lib/qcow2/image.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import type { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { afterPowerCut } from '../support/power-cut.js'
import { SeededRandom } from '../support/seeded-random.js'
import {
  backingGeneration,
  runTwoFiles,
  settingOf,
  type TwoFileMutant,
  type TwoFileRun,
  type TwoFileSetting,
} from './data-file-disk.js'
import { describeValue, readPayload, stampedBytes, valueAt } from './payload.js'

/** The two files as a crash may leave them: power goes for both at once. */
type TwoFiles = { readonly own: SparseBytes; readonly data: SparseBytes }

/** What is wrong with the files at a time of a run. @returns undefined: nothing */
export async function judgeTwoFiles(
  run: TwoFileRun,
  files: TwoFiles,
  time: number,
): Promise<string | undefined> {
  const check = await checkQcow2(new MemoryBackend({ contents: files.own, readOnly: true }))
  if (check.corruptions + check.checkErrors > 0)
    return check.findings.find(({ kind }) => kind !== 'leak')?.text
  const data = new MemoryBackend({ contents: files.data, readOnly: true })
  const own = new MemoryBackend({ contents: files.own, readOnly: true })
  const image = await openQcow2(own, { readOnly: true, backing: run.backing, dataFile: data })
  const bytes = new Uint8Array(image.size)
  await image.read(bytes, 0)
  await image.close()
  const allowed = run.history.at(time)
  const sizes = allowed.sizes.filter(({ sectors }) => sectors * sectorSize === bytes.length)
  if (sizes.length === 0) return `the disk has ${bytes.length} bytes`
  for (let lba = 0; lba * sectorSize < bytes.length; lba++) {
    const payload = readPayload(bytes, lba * sectorSize)
    const shown = valueAt(lba, payload.lba, payload.generation)
    const candidates = allowed.values.get(lba)
    const fits =
      candidates === undefined
        ? shown === run.history.initialAt(lba)
        : candidates.some(
            ({ value, lastResize }) => value === shown && sizes.some(({ resize }) => resize <= lastResize),
          )
    if (!fits) return `sector ${lba} shows ${describeValue(shown)}`
  }
  if (!run.setting.isRaw) return undefined
  const raw = new Uint8Array(bytes.length)
  files.data.read(raw, 0)
  const differs = bytes.findIndex((byte, at) => byte !== raw[at])
  return differs < 0
    ? undefined
    : `the raw data file differs from the disk in sector ${Math.floor(differs / sectorSize)}`
}

/** Cut the power in the midst of a run, again and again. @returns what is wrong, and how many states were looked at */
export async function cutTwoFiles(
  run: TwoFileRun,
  states: number,
): Promise<{ problem: string | undefined; states: number }> {
  const random = new SeededRandom(run.setting.seed + 2)
  const ends = run.order.length
  for (let state = 1; state <= states; state++) {
    const cut = random.chance(0.1) ? ends : random.integer(ends + 1)
    const ofData = run.order.slice(0, cut).filter((isData) => isData).length
    const files = {
      own: afterPowerCut(run.before.own, run.own.log, cut - ofData, random),
      data: afterPowerCut(run.before.data, run.data.log, ofData, random),
    }
    const problem = await judgeTwoFiles(run, files, cut)
    if (problem !== undefined)
      return { problem: `${problem}, cut at ${cut} of ${ends}, state ${state}`, states: state }
  }
  return { problem: undefined, states }
}

/** Run after run, until something is wrong or there were enough states. */
export async function exploreTwoFiles(
  seed: number,
  mostStates: number,
  mutant?: TwoFileMutant,
  more: Partial<TwoFileSetting> = {},
): Promise<{ problem: string | undefined; states: number; runs: number }> {
  let states = 0
  let runs = 0
  while (states < mostStates) {
    const setting = settingOf(seed + runs++, more)
    const run = await runTwoFiles(setting, mutant)
    const found = await cutTwoFiles(run, Math.min(40, mostStates - states))
    states += found.states
    if (found.problem !== undefined)
      return { problem: `${found.problem}: ${JSON.stringify(setting)}`, states, runs }
  }
  return { problem: undefined, states, runs }
}

/**
 * Empty an image whose backing file holds all that it maps, and cut the power meanwhile.
 * @param first  done to the data file before: what a wrong order would do
 * @returns what is wrong
 */
export async function exploreEmptying(
  seed: number,
  states: number,
  first: (data: MemoryBackend) => Promise<void> = () => Promise.resolve(),
): Promise<string | undefined> {
  const setting = settingOf(seed, {
    backing: backingGeneration,
    isRaw: false,
    syncPolicy: 'flush',
    requests: 0,
  })
  const run = await runTwoFiles(setting, {
    work: async (image, data) => {
      await image.write(stampedBytes(0, 60, backingGeneration), 0)
      await image.flush()
      await first(data)
      await image.empty()
    },
  })
  return (await cutTwoFiles(run, states)).problem
}
