import { copyFile, mkdir, readFile, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { createImage, type DiskImage, imageInfo, openImage } from '../../lib/index.js'
import { bitmapsIn } from '../crash/bitmap-walk.js'
import { BitmapModel, type BitmapStep, ourBitmapStep, stockBitmapFlags } from '../support/bitmap-model.js'
import { cliPath, type CliOutcome, runCommand } from '../support/cli.js'
import { qemuCheck, qemuImg, qemuIo, qemuVersion } from '../support/qemu.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

/** Every day a few; QCOW2_BITMAP_SEQUENCES=200 or more for a full run. */
const sequences = countOfRun('QCOW2_BITMAP_SEQUENCES', 8)
const seed = seedOfRun()

const requestKinds = ['write', 'zero', 'discard', 'compress'] as const

class BitmapSequence {
  readonly log: string[] = []
  readonly #path: string
  readonly #random: SeededRandom
  readonly #clusterSize: number
  readonly #model: BitmapModel
  #size: number
  #copies = 0

  constructor(path: string, random: SeededRandom) {
    this.#path = path
    this.#random = random
    this.#clusterSize = random.pick([512, 4096, 65536])
    // Not whole clusters.
    this.#size = this.#clusterSize * 90 + 512
    this.#model = new BitmapModel(this.#size)
  }

  async run(): Promise<void> {
    await createImage(this.#path, { size: this.#size, clusterSize: this.#clusterSize })
    for (let phase = 0; phase < 4; phase++) {
      if (phase % 2 === 0) await this.#ours()
      else await this.#theirs()
      await this.#compare()
    }
  }

  async #ours(): Promise<void> {
    const image = await openImage(this.#path, { cache: this.#random.pick(['writeback', 'writethrough']) })
    try {
      for (let left = 14; left > 0; left--) {
        if (this.#random.chance(0.1)) await this.#resize(image)
        else if (this.#random.chance(0.4)) await this.#changeBitmap((step) => ourBitmapStep(image, step))
        else await this.#request(image)
        if (this.#random.chance(0.2)) await this.#compareOpen(image)
      }
    } finally {
      await image.close()
    }
  }

  async #theirs(): Promise<void> {
    for (let left = 4; left > 0; left--) {
      await this.#changeBitmap(async (step) => {
        await qemuImg('bitmap', ...stockBitmapFlags(step), this.#path, step.name)
      })
    }
    const commands: string[] = []
    for (let left = 4; left > 0; left--) {
      const { offset, length } = this.#range(512)
      const verb = this.#random.pick(['write', 'write -z', 'discard'])
      commands.push(`${verb} ${offset} ${length}`)
      this.#model.touch(offset, length)
    }
    this.log.push(...commands)
    await qemuIo(this.#path, commands)
  }

  /** @returns a range of the disk of whole units */
  #range(unit: number): { offset: number; length: number } {
    const units = Math.floor(this.#size / unit)
    const first = this.#random.integer(units)
    const most = Math.min(units - first, Math.ceil((6 * this.#clusterSize) / unit))
    return { offset: first * unit, length: (1 + this.#random.integer(most)) * unit }
  }

  async #request(image: DiskImage): Promise<void> {
    const kind = this.#random.pick(requestKinds)
    const { offset, length } = this.#range(kind === 'compress' ? this.#clusterSize : 1)
    this.log.push(`our ${kind} ${offset} ${length}`)
    this.#model.touch(offset, length)
    if (kind === 'write') await image.write(new Uint8Array(length).fill(7), offset)
    else if (kind === 'compress') await image.writeCompressed(new Uint8Array(length).fill(7), offset)
    else if (kind === 'zero') await image.writeZeroes({ offset, length, unmap: this.#random.chance(0.5) })
    else await image.discard({ offset, length })
  }

  async #resize(image: DiskImage): Promise<void> {
    const size = Math.max(8, this.#random.integer(200)) * Math.ceil(this.#clusterSize / 2)
    const wanted = Math.ceil(size / 512) * 512
    this.log.push(`resize ${wanted}`)
    this.#size = wanted
    // What comes back may have been something else before.
    this.#model.resize(wanted, { marksGrowth: true })
    await image.resize(wanted, { shrink: true })
  }

  async #changeBitmap(perform: (step: BitmapStep) => Promise<void>): Promise<void> {
    const step = this.#model.anyStep(this.#random)
    this.log.push(Object.values(step).join(' '))
    await perform(step)
  }

  /** What each says while it is open, and on its way to the file. */
  async #compareOpen(image: DiskImage): Promise<void> {
    const list = await image.bitmaps.list()
    for (const { name, granularity, enabled, inconsistent } of list) {
      const model = this.#model.all.get(name)
      const units = new Set<number>()
      for await (const { offset, length } of image.bitmaps.ranges(name)) {
        for (let at = offset; at < offset + length; at += granularity) units.add(at / granularity)
      }
      same(name, { granularity, enabled, inconsistent, units }, { ...model, inconsistent: false })
    }
    if (list.length !== this.#model.all.size)
      throw new Error(`${list.length} bitmaps, not ${this.#model.all.size}`)
  }

  async #compare(): Promise<void> {
    const problem = await qemuCheck(this.#path)
    if (problem !== '') throw new Error(problem)
    const image = await openImage(this.#path, { readOnly: true })
    try {
      await this.#compareOpen(image)
    } finally {
      await image.close()
    }
    const { qcow2 } = await imageInfo(this.#path)
    const theirs = JSON.parse(await qemuImg('info', '--output=json', this.#path)) as {
      'format-specific': { data: { bitmaps?: unknown[] } }
    }
    const [ours, stock] = [qcow2?.bitmaps ?? [], theirs['format-specific'].data.bitmaps ?? []]
    const sorted = ours.map(({ flags, name, granularity }) => ({ flags, name, granularity }))
    if (JSON.stringify(sorted) !== JSON.stringify(stock)) throw new Error(JSON.stringify([ours, stock]))
    await this.#compareStock()
  }

  /** What the stock tool has read of them: it writes it into others. */
  async #compareStock(): Promise<void> {
    const copy = `${this.#path}.${this.#copies++}`
    await copyFile(this.#path, copy)
    for (const [name, { granularity }] of this.#model.all) {
      await qemuImg('bitmap', '--add', '-g', String(granularity), '--merge', name, copy, `copy of ${name}`)
    }
    const bytes = new Uint8Array(await readFile(copy))
    const { bitmaps } = bitmapsIn(new DataView(bytes.buffer), bytes.length)
    for (const [name, { granularity, units }] of this.#model.all) {
      const found = bitmaps.find((one) => one.name === `copy of ${name}`)
      const seen = new Set<number>()
      for (let at = 0; at < this.#size; at += granularity) if (found?.isMarked(at)) seen.add(at / granularity)
      same(`${name}, by the stock tool,`, { units: seen }, { units })
    }
  }
}

function same(name: string, found: Record<string, unknown>, wanted: Record<string, unknown>): void {
  for (const key of Object.keys(found)) {
    const [is, must] = [found[key], wanted[key]].map((value) =>
      value instanceof Set ? [...(value as Set<number>)].sort((a, b) => a - b).join() : String(value),
    )
    if (is !== must) throw new Error(`${name} has ${key} ${is}, not ${must}`)
  }
}

test('bitmaps say exactly what was touched, for us and for the stock tool, whoever has written', async (t) => {
  t.timeout(24 * 3600 * 1000)
  t.log(`QCOW2_SEED=${seed}, ${sequences} sequences`)
  const folder = await makeFolder(t, { fast: true })
  let next = 0
  const lane = async (): Promise<void> => {
    for (let index = next++; index < sequences; index = next++) {
      const run = new BitmapSequence(join(folder, `${index}.qcow2`), new SeededRandom((seed + index) >>> 0))
      await run.run().catch((error: unknown) => {
        const replay = `QCOW2_SEED=${seed + index} QCOW2_BITMAP_SEQUENCES=1`
        throw new Error(`${replay}: ${String(error)}\n${run.log.join('\n')}`, { cause: error })
      })
    }
  }
  await Promise.all([lane(), lane(), lane()])
  t.pass()
})

/** Commands on copies of the same images; `@` stands for the folder. */
const commandLines: readonly (readonly string[])[] = [
  ['bitmap'],
  ['bitmap', 'a.qcow2', 'x'],
  ['bitmap', '--add', 'a.qcow2'],
  ['bitmap', '--add', 'a.qcow2', 'x', 'y'],
  ['bitmap', '-g', '4k', '--clear', 'a.qcow2', 'live'],
  ['bitmap', '-g', 'frob', '--add', 'a.qcow2', 'x'],
  ['bitmap', '-F', 'qcow2', '--merge', 'live', 'a.qcow2', 'still'],
  ['bitmap', '-b', 'b.qcow2', '--clear', 'a.qcow2'],
  ['bitmap', '--add', '-g', '100', 'a.qcow2', 'x'],
  ['bitmap', '--add', '-g', '4G', 'a.qcow2', 'x'],
  ['bitmap', '--add', '-g', '0', 'a.qcow2', 'zero'],
  ['bitmap', '--add', '-g', '2G', 'a.qcow2', 'large'],
  ['bitmap', '--add', 'a.qcow2', ''],
  ['bitmap', '--add', 'a.qcow2', 'live'],
  ['bitmap', '--remove', 'a.qcow2', 'nothing'],
  ['bitmap', '--add', '--disable', 'a.qcow2', 'two'],
  ['bitmap', '--add', '--remove', 'a.qcow2', 'gone'],
  ['bitmap', '--remove', '--add', 'a.qcow2', 'never'],
  ['bitmap', '--add', '-g', '512', '--merge', 'live', '--merge', 'still', '--disable', 'a.qcow2', 'all'],
  ['bitmap', '--merge', 'nothing', 'a.qcow2', 'live'],
  ['bitmap', '--merge', 'live', 'a.qcow2', 'live'],
  ['bitmap', '--merge', 'other', '-b', 'b.qcow2', '-F', 'qcow2', 'a.qcow2', 'still'],
  ['bitmap', '--merge', 'other', '-b', 'small.qcow2', 'a.qcow2', 'still'],
  ['bitmap', '--merge', 'other', '-b', 'missing', 'a.qcow2', 'still'],
  ['bitmap', '--clear', '--enable', 'a.qcow2', 'still'],
  ['bitmap', '--clear', 'crashed.qcow2', 'live'],
  ['bitmap', '--merge', 'live', 'crashed.qcow2', 'live'],
  ['bitmap', '--remove', 'crashed.qcow2', 'live'],
  ['bitmap', '--clear', 'raw.img', 'x'],
  ['info', 'crashed.qcow2'],
  ['check', 'crashed.qcow2'],
  ['measure', '-O', 'qcow2', 'a.qcow2'],
  ['resize', 'crashed2.qcow2', '+1M'],
  ['convert', '-O', 'qcow2', '--bitmaps', 'a.qcow2', 'copy.qcow2'],
  ['convert', '-O', 'qcow2', '--bitmaps', 'crashed2.qcow2', 'broken.qcow2'],
  ['convert', '-O', 'qcow2', '--bitmaps', '--skip-broken-bitmaps', 'crashed2.qcow2', 'skipped.qcow2'],
  ['convert', '-O', 'qcow2', '--skip-broken-bitmaps', 'a.qcow2', 'x.qcow2'],
  ['convert', '-O', 'qcow2', '--bitmaps', 'a.qcow2', 'b.qcow2', 'x.qcow2'],
  ['convert', '-O', 'raw', '--bitmaps', 'a.qcow2', 'x.raw'],
  ['convert', '-O', 'qcow2', '--bitmaps', '-f', 'raw', 'raw.img', 'x.qcow2'],
  ['convert', '-n', '-O', 'qcow2', '--bitmaps', 'a.qcow2', 'copy.qcow2'],
]

async function makeImages(folder: string): Promise<void> {
  const at = (name: string): string => join(folder, name)
  await qemuImg('create', '-q', '-f', 'qcow2', at('a.qcow2'), '3M')
  await qemuImg('bitmap', '--add', '-g', '4k', at('a.qcow2'), 'live')
  await qemuIo(at('a.qcow2'), ['write -P 1 1M 9k'])
  await qemuImg('bitmap', '--add', '--disable', at('a.qcow2'), 'still')
  await copyFile(at('a.qcow2'), at('b.qcow2'))
  await qemuImg('bitmap', '--add', '--merge', 'live', at('b.qcow2'), 'other')
  await qemuImg('create', '-q', '-f', 'qcow2', at('small.qcow2'), '1M')
  await qemuImg('bitmap', '--add', at('small.qcow2'), 'other')
  await qemuImg('create', '-q', '-f', 'raw', at('raw.img'), '1M')
  await copyFile(at('a.qcow2'), at('crashed.qcow2'))
  await qemuIo(at('crashed.qcow2'), ['write -P 2 2M 64k', 'abort']).catch(() => undefined)
  await copyFile(at('crashed.qcow2'), at('crashed2.qcow2'))
}

/** Node names and paths are not alike, nor is how much a file system stores; 7.2 tells some things twice. */
function comparable({ code, stdout, stderr }: CliOutcome): CliOutcome {
  return {
    code,
    stdout: stdout.replace(/^disk size: .*$/gm, 'disk size'),
    stderr: stderr
      .replace(/(to|in) ('?)(#block\d+|[\w.]+\.(qcow2|img))('?)(?=:)/g, '$1 $2IMAGE$5')
      .replace(/(Could not open '(?:[^'\n]*)': )\1/g, '$1'),
  }
}

async function bitmapsOf(t: ExecutionContext, folder: string): Promise<unknown> {
  const found: Record<string, unknown> = {}
  for (const name of ['a', 'b', 'crashed', 'crashed2', 'copy', 'skipped']) {
    const path = join(folder, `${name}.qcow2`)
    t.is(await qemuCheck(path), '', path)
    const bytes = new Uint8Array(await readFile(path))
    found[name] = bitmapsIn(new DataView(bytes.buffer), bytes.length).bitmaps.map(
      ({ isMarked, ...bitmap }) => ({
        ...bitmap,
        marks: Array.from({ length: 6144 }, (_, sector) => Number(isMarked(sector * 512))).join(''),
      }),
    )
  }
  return found
}

const oracle = qemuVersion() === '7.2' ? test : test.skip

oracle(
  "the command line is the stock tool's: texts, exit codes, and what it leaves in the images",
  async (t) => {
    t.timeout(120_000)
    const folder = await makeFolder(t, { fast: true })
    await mkdir(join(folder, 'bin'))
    await symlink(cliPath, join(folder, 'bin', 'qemu-img'))
    const [ours, theirs] = [join(folder, 'ours'), join(folder, 'theirs')]
    await mkdir(ours)
    await makeImages(ours)
    await mkdir(theirs)
    await Promise.all(
      ['a.qcow2', 'b.qcow2', 'small.qcow2', 'raw.img', 'crashed.qcow2', 'crashed2.qcow2'].map((name) =>
        copyFile(join(ours, name), join(theirs, name)),
      ),
    )
    for (const words of commandLines) {
      const [actual, expected] = await Promise.all([
        runCommand([process.execPath, join(folder, 'bin', 'qemu-img'), ...words], ours),
        runCommand(['qemu-img', ...words], theirs),
      ])
      t.deepEqual(comparable(actual), comparable(expected), words.join(' '))
    }
    t.deepEqual(await bitmapsOf(t, ours), await bitmapsOf(t, theirs))
  },
)
