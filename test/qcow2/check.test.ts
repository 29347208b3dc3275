import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { ourCheck, theirCheck, type Verdict } from '../support/check-like-qemu.js'
import { damage, type SampleOptions, sampleImage } from '../support/image-bytes.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

const samples: SampleOptions[] = [512, 4096, 65536].flatMap((clusterSize) => [
  { clusterSize, snapshots: true, bitmap: true },
  { clusterSize, snapshots: true },
  { clusterSize, refcountBits: 1 },
  { clusterSize, refcountBits: 64 },
  { clusterSize, version: 2, snapshots: true },
])
samples.push(
  { clusterSize: 65536, extendedL2: true },
  { clusterSize: 2 << 20, refcountBits: 2, bitmap: true },
)

for (const options of samples) {
  test(`a clean image is found clean, with qemu-img's numbers: ${JSON.stringify(options)}`, async (t) => {
    const folder = await makeFolder(t, { fast: true })
    await sampleImage(folder, options)
    const file = join(folder, 'sample.qcow2')
    const ours = await ourCheck(file)
    t.is(ours.exit, 0)
    t.deepEqual(differences(ours, await theirCheck(file)), [])
  })
}

/**
 * Names of snapshots are escaped by us, and printed as they are by the stock tool; counts of 64 bits are told as 2^53 - 1 where
 * they are beyond that.
 */
const comparable = (line: string): string =>
  line
    .replace(/^ERROR snapshot .* \(.*\) /s, 'ERROR snapshot ')
    .replace(/refcount=(9007199254740991|\d{17,})/, 'refcount=beyond')

/** What one verdict says and the other does not; the first few lines only, for there may be thousands. */
function differences(ours: Verdict, theirs: Verdict): unknown[] {
  const [left, right] = [ours, theirs].map(({ lines }) => lines.map(comparable).sort()) as [
    string[],
    string[],
  ]
  const first = left.findIndex((line, index) => line !== right[index])
  const at = first === -1 && left.length !== right.length ? Math.min(left.length, right.length) : first
  const { lines: ourLines, ...ourNumbers } = ours
  const { lines: theirLines, ...theirNumbers } = theirs
  const numbers =
    JSON.stringify(ourNumbers) === JSON.stringify(theirNumbers) ? [] : [ourNumbers, theirNumbers]
  const lines =
    at === -1 ? [] : [`ours: ${left[at]}`, `theirs: ${right[at]}`, ourLines.length, theirLines.length]
  return [...numbers, ...lines]
}

/** We refuse numbers in the header that are beyond 2^53; the stock tool goes on with them. */
const beyondOurNumbers = (error: unknown): boolean => /header at offset \d+: .*2\^53/.test(String(error))

const damagedImages = countOfRun('QCOW2_CHECK_ROUNDS', 150)

test('damaged images get the verdict, the numbers and the words of qemu-img', async (t) => {
  t.timeout(60_000 + damagedImages * 5_000)
  const seed = seedOfRun()
  t.log(`seed ${seed}`)
  const random = new SeededRandom(seed)
  const folder = await makeFolder(t, { fast: true })
  const images: Buffer[] = []
  for (const options of samples.slice(0, -1)) images.push(await sampleImage(folder, options))
  const file = join(folder, 'damaged.qcow2')
  for (let round = 0; round < damagedImages; round++) {
    const image = Buffer.from(random.pick(images))
    const what = damage(image, random)
    await writeFile(file, image)
    const { error, ...ours } = await ourCheck(file)
    const theirs = await theirCheck(file)
    if (beyondOurNumbers(error)) continue
    const where = `seed ${seed}, round ${round}, ${what}, ${String(error)}`
    if (ours.exit === 1 && theirs.exit === 1) continue
    t.deepEqual(differences(ours, theirs), [], where)
  }
})

test('a check reads, and changes nothing', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const image = await sampleImage(folder, { clusterSize: 4096, snapshots: true })
  damage(image, new SeededRandom(3))
  const file = join(folder, 'damaged.qcow2')
  await writeFile(file, image)
  await ourCheck(file)
  t.true(image.equals(await readFile(file)))
})
