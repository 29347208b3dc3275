import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'
import { conform } from './conform.js'
import { coveringRows } from './coverage.js'
import { choices, describeKind, type ImageKind, mayBe } from './image-kinds.js'

/** Every choice occurs with every other, of so many at once. One, every day: each choice occurs. */
const strength = countOfRun('QCOW2_CONFORMANCE', 1)

test.serial('images of every kind are made, read and written by us as by the stock tool', async (t) => {
  t.timeout(24 * 3600 * 1000)
  const seed = seedOfRun()
  const folder = await makeFolder(t, { fast: true })
  const kinds = coveringRows(choices, mayBe, strength, new SeededRandom(seed)) as unknown as ImageKind[]
  let images = 0
  for (const [index, kind] of kinds.entries()) {
    for (const first of ['us', 'them'] as const) {
      const own = join(folder, 'one')
      await mkdir(own)
      try {
        await conform(own, kind, first, new SeededRandom(seed + index))
        images++
      } catch (error) {
        const replay = `QCOW2_SEED=${seed} QCOW2_CONFORMANCE=${strength}`
        t.fail(`${replay}: number ${index}, made by ${first}: ${describeKind(kind)}: ${String(error)}`)
      }
      await rm(own, { recursive: true })
    }
  }
  t.is(images, 2 * kinds.length)
  t.log(`${images} images, all combinations of ${strength} choices; seed ${seed}`)
})
