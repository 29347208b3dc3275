import { join } from 'node:path'
import test from 'ava'
import { createImage, type CreateOptions, imageInfo, openImage } from '../../lib/index.js'
import {
  type BackingShape,
  clusterSizes,
  compatOf,
  makeBacking,
  refcountWidths,
  type Shape,
  shownOver,
} from '../support/image-shapes.js'
import { qemuCheck, qemuImg, qemuIo, qemuRead } from '../support/qemu.js'
import { countOfRun, SeededRandom } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

type Preallocation = 'off' | 'metadata' | 'falloc' | 'full'

/** How often each of the two writes to an image. */
const turns = countOfRun('QCOW2_MATRIX_TURNS', 1)

/** Some clusters and a part of one, in sectors; small images for small clusters. */
function sizeOf(clusterSize: number): number {
  return Math.min(clusterSize * 37, 2 * clusterSize + 1024 * 1024) + 512 * 3
}

function* shapes(clusterSize: number): Generator<Shape> {
  const size = sizeOf(clusterSize)
  for (const refcountBits of refcountWidths)
    yield { version: 3, clusterSize, refcountBits, size, backing: undefined }
  yield { version: 2, clusterSize, refcountBits: 16, size, backing: undefined }
  if (clusterSize >= 16384)
    yield { version: 3, clusterSize, refcountBits: 16, extendedL2: true, size, backing: undefined }
}

function optionsOf(shape: Shape, preallocation: Preallocation): { ours: CreateOptions; theirs: string[] } {
  const { size, clusterSize, refcountBits, extendedL2 = false } = shape
  const compat = compatOf(shape)
  const extended = extendedL2 ? 'on' : 'off'
  return {
    ours: { size, clusterSize, refcountBits, compat, preallocation, extendedL2 },
    theirs: [
      '-o',
      `cluster_size=${clusterSize},refcount_bits=${refcountBits},compat=${compat},preallocation=${preallocation},extended_l2=${extended}`,
    ],
  }
}

/**
 * Write to an image in turn with the stock tool, and read everything after each turn, with both.
 * @param content  what the disk shows at first
 * @returns what is wrong, '' if nothing is
 */
async function writeInTurn(path: string, content: Buffer, random: SeededRandom): Promise<string> {
  const { length: size } = content
  for (let turn = 0; turn < turns; turn++) {
    const commands: string[] = []
    for (let index = 0; index < 3; index++) {
      const offset = random.integer(size / 512) * 512
      const length = Math.min(random.between(1, 100) * 512, size - offset)
      const pattern = random.between(1, 255)
      content.fill(pattern, offset, offset + length)
      commands.push(`write -q -P ${pattern} ${offset} ${length}`)
    }
    await qemuIo(path, commands, ['-f', 'qcow2'])
    const image = await openImage(path)
    try {
      if (image.size !== size) return `size ${image.size} where ${size} is right`
      const seen = Buffer.from(await image.read({ offset: 0, length: size }))
      if (!seen.equals(content)) return `turn ${turn}: we read something else than qemu-io wrote`
      for (let index = 0; index < 3; index++) {
        const offset = random.integer(size)
        const bytes = random.bytes(Math.min(random.between(1, 100_000), size - offset))
        content.set(bytes, offset)
        await image.write(bytes, offset)
      }
    } finally {
      await image.close()
    }
    const problem = await qemuCheck(path)
    if (problem !== '') return `turn ${turn}: ${problem}`
    if (!(await qemuRead(path)).equals(content))
      return `turn ${turn}: qemu-img reads something else than we wrote`
  }
  return ''
}

for (const clusterSize of clusterSizes) {
  for (const preallocation of ['off', 'metadata', 'falloc', 'full'] as const) {
    test(`images of ${clusterSize} byte clusters, preallocation ${preallocation}, of both versions and every refcount width, are written in turn with qemu-io`, async (t) => {
      t.timeout(600_000)
      const folder = await makeFolder(t, { fast: true })
      const random = new SeededRandom(clusterSize + preallocation.length)
      for (const shape of shapes(clusterSize)) {
        const { ours, theirs } = optionsOf(shape, preallocation)
        const label = `version ${shape.version}, refcounts ${shape.refcountBits} bits`
        const byUs = join(folder, 'by-us')
        await createImage(byUs, { ...ours, overwrite: true })
        t.is(await qemuCheck(byUs), '', label)
        t.is(await writeInTurn(byUs, Buffer.alloc(shape.size), random), '', `created by us, ${label}`)
        const byThem = join(folder, 'by-them')
        await qemuImg('create', '-q', '-f', 'qcow2', ...theirs, byThem, String(shape.size))
        t.like((await imageInfo(byThem)).qcow2, { compat: compatOf(shape), refcountBits: shape.refcountBits })
        t.is(await writeInTurn(byThem, Buffer.alloc(shape.size), random), '', `created by qemu-img, ${label}`)
      }
    })
  }

  test(`overlays of ${clusterSize} byte clusters over shorter, longer and equal files of both formats are written in turn with qemu-io`, async (t) => {
    t.timeout(600_000)
    const size = sizeOf(clusterSize)
    const random = new SeededRandom(clusterSize)
    for (const format of ['raw', 'qcow2'] as const) {
      for (const backingSize of [512, Math.ceil(size / 1024) * 512, size, size + 5 * 512]) {
        const folder = await makeFolder(t, { fast: true })
        const backing: BackingShape = { format, size: backingSize }
        const { name, content } = await makeBacking(folder, backing, random)
        for (const kind of [2, 3, 'extended'] as const) {
          const extendedL2 = kind === 'extended'
          if (extendedL2 && clusterSize < 16384) continue
          const version = kind === 2 ? 2 : 3
          const shape: Shape = { version, clusterSize, refcountBits: 16, extendedL2, size, backing }
          const label = `version ${kind} over ${format} of ${backingSize} bytes`
          const path = join(folder, `disk-${kind}`)
          const { ours } = optionsOf(shape, 'off')
          await createImage(path, { ...ours, backingFile: name, backingFormat: format })
          t.is(await writeInTurn(path, shownOver(content, size), random), '', label)
        }
      }
    }
  })
}
