import { writeFile } from 'node:fs/promises'
import { checkQcow2 } from '../../lib/qcow2/check.js'
import { openQcow2 } from '../../lib/qcow2/image.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { encryptedName, passphrase, secret } from '../support/encrypted.js'
import { qemuReadOf, run } from '../support/qemu.js'
import type { SampledState } from './explore.js'
import { readPayload, valueAt } from './payload.js'
import type { StartImage } from './start-images.js'

/** What the explorer's own walk does not judge like a checker: bytes behind the end of the disk are no corruption. */
const isCorrupt = (problem: string | undefined): boolean => /^corrupt: (?!lba)/.test(problem ?? '')

/** A header may be torn in a way that a checker does not mind, or cannot even read. */
const isHeaders = (problem: string | undefined): boolean => problem?.startsWith('header:') === true

/** The stock tool would look for the backing file that a header names, which is none. */
export function withoutBackingName(bytes: Uint8Array): Uint8Array {
  const alone = bytes.slice()
  // Its offset and size.
  alone.fill(0, 8, 20)
  return alone
}

/**
 * Whether flags may differ from counts, which checkers call corruptions: while an operation on snapshots goes on, and harmless then. Repairing leaks
 * must put an end to it.
 */
const mayBeFlags = (sample: SampledState): boolean =>
  sample.problem === undefined && sample.copied !== 'exact'

/**
 * Let the library's own checker and reader look at a state that the explorer has judged.
 * @returns where they disagree; undefined when they do not
 */
export async function disagreement(start: StartImage, sample: SampledState): Promise<string | undefined> {
  if (isHeaders(sample.problem)) return undefined
  let contents = (): SparseBytes => SparseBytes.from(sample.bytes)
  let isSound: boolean
  let said: string
  try {
    if (sample.isDirty) {
      // As opening for writing does.
      const memory = new MemoryBackend({ contents: contents() })
      await checkQcow2(memory, { repair: 'all' })
      contents = () => SparseBytes.from(memory.snapshot())
    }
    let result = await checkQcow2(new MemoryBackend({ contents: contents(), readOnly: true }))
    const areFlags = result.findings.every(({ kind }) => kind === 'copied-flag' || kind === 'leak')
    if (result.corruptions > 0 && areFlags && mayBeFlags(sample)) {
      const memory = new MemoryBackend({ contents: contents() })
      result = { ...(await checkQcow2(memory, { repair: 'leaks' })), leaks: result.leaks }
      contents = () => SparseBytes.from(memory.snapshot())
    }
    isSound = result.corruptions + result.checkErrors === 0
    said = `${result.corruptions} corruptions, ${result.leaks} leaks: ${result.findings[0]?.text ?? ''}`
    if (isSound && !sample.isDirty && sample.problem === undefined && result.leaks !== sample.leaksInFile) {
      return `the walk counts ${sample.leaksInFile} leaks, check ${result.leaks}`
    }
  } catch (error) {
    isSound = false
    said = String(error)
  }
  if (isSound === isCorrupt(sample.problem))
    return `the walk says ${sample.problem ?? 'sound'}, check ${said}`
  if (sample.problem !== undefined) return undefined
  const image = await openQcow2(new MemoryBackend({ contents: contents() }), {
    readOnly: true,
    backing: start.backing,
    ...(start.cipher === undefined ? {} : { encryption: { passphrase } }),
  })
  const seen = new Uint8Array(sample.values.length * 512)
  await image.read(seen, 0)
  await image.close()
  if (image.size !== sample.sizeSectors * 512)
    return `the walk says ${sample.sizeSectors} sectors, not ${image.size} bytes`
  return difference(seen, sample, 'our reading')
}

/** As `disagreement`, by the stock tool. @param path  of a file that it may write */
export async function qemuDisagreement(
  start: StartImage,
  sample: SampledState,
  path: string,
): Promise<string | undefined> {
  if (isHeaders(sample.problem)) return undefined
  await writeFile(path, withoutBackingName(sample.bytes))
  const told =
    start.cipher === undefined ? ['-f', 'qcow2', path] : [...secret, '--image-opts', encryptedName(path)]
  const repair = sample.isDirty ? ['-r', 'all'] : []
  let { code, stdout, stderr } = await run('qemu-img', ['check', ...repair, ...told])
  if (code === 2 && mayBeFlags(sample)) {
    ;({ code, stdout, stderr } = await run('qemu-img', ['check', '-r', 'leaks', ...told]))
  }
  const isSound = code === 0 || code === 3
  if (isSound === isCorrupt(sample.problem)) {
    return `the walk says ${sample.problem ?? 'sound'}, qemu-img check ${code}: ${stdout}${stderr}`
  }
  // A backing file that a workload has is in none of its headers, so that the stock tool does not see it.
  if (sample.problem !== undefined || start.backing !== undefined) return undefined
  if (sample.sizeSectors > sample.values.length) return undefined
  return difference(await qemuReadOf(told, `${path}.read-by-qemu`), sample, "qemu-img's reading")
}

function difference(seen: Uint8Array, sample: SampledState, reader: string): string | undefined {
  for (let lba = 0; lba < sample.values.length; lba++) {
    const payload = readPayload(seen, lba * 512)
    const value = valueAt(lba, payload.lba, payload.generation)
    if (value !== sample.values[lba]) {
      return `lba ${lba}: ${reader} shows ${value}, the walk ${sample.values[lba]}`
    }
  }
  return undefined
}
