import test from 'ava'
import { Qcow2Error } from '../../lib/base/errors.js'
import { inspectText, inspectJson } from '../../lib/cli/inspect-report.js'
import { jsonText } from '../../lib/cli/json-text.js'
import { inspectQcow2 } from '../../lib/qcow2/inspect.js'
import type { ImageStructure } from '../../lib/qcow2/inspect-structure.js'
import { magic } from '../../lib/qcow2/spec.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'
import { SparseBytes } from '../../lib/queue/sparse-bytes.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'
import { mutate } from './mutate.js'
import { sampleImages } from './sample-images.js'

async function inspect(bytes: Uint8Array): Promise<readonly ImageStructure[]> {
  const backend = new MemoryBackend({ contents: SparseBytes.from(bytes) })
  try {
    return await inspectQcow2(backend, { most: 50, signal: undefined })
  } finally {
    await backend.close()
  }
}

function countParts(parts: readonly ImageStructure[]): number {
  return parts.reduce((sum, part) => sum + 1 + countParts(part.parts ?? []), 0)
}

test.serial(
  'whatever an image says, as much of it as can be read is shown, and only what is no image is refused',
  async (t) => {
    t.timeout(120_000)
    const seed = seedOfRun()
    const count = countOfRun('QCOW2_INSPECTIONS', 640)
    t.log(`seed ${seed}, ${count} images`)
    const samples = await sampleImages(await makeFolder(t))
    const most = Math.max(
      ...(await Promise.all(samples.map(async ({ bytes }) => countParts(await inspect(bytes))))),
    )
    let withProblems = 0
    for (let index = 0; index < count; index++) {
      const sample = samples[index % samples.length]
      if (sample === undefined) continue
      const { bytes, story } = mutate(sample, new SeededRandom(seed * 1_000_003 + index))
      const what = `seed ${seed}, number ${index}, ${sample.name}: ${story}`
      try {
        const parts = await inspect(bytes)
        t.is(parts[0]?.structure, 'header', what)
        // Tables of nothing but numbers, of which 50 are listed each.
        t.true(countParts(parts) <= most + 50 * 40, `${what}: ${countParts(parts)} parts`)
        const image = { path: 'a', fileSize: bytes.length, parts }
        if (inspectText(image).includes(' ! ')) withProblems++
        JSON.parse(jsonText(inspectJson(image)))
      } catch (error) {
        const isNone = bytes.length < 4 || bytes.readUInt32BE(0) !== magic
        if (isNone && error instanceof Qcow2Error && error.code === 'ERR_NOT_AN_IMAGE') continue
        throw new Error(what, { cause: error })
      }
    }
    t.true(withProblems > count / 10, `${withProblems} with problems`)
  },
)

test.serial('sound images have no problems', async (t) => {
  for (const { name, bytes } of await sampleImages(await makeFolder(t))) {
    const parts = await inspect(bytes)
    t.notRegex(inspectText({ path: name, fileSize: bytes.length, parts }), / ! /, name)
  }
})
