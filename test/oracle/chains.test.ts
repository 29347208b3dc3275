import { copyFile, mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { commitImage, createImage, flattenImage, openImage, rebaseImage } from '../../lib/index.js'
import { chainClusterSizes, type Link, makeChain, makeLink, randomLinks } from '../support/chain-shapes.js'
import { shownOver } from '../support/image-shapes.js'
import { qemuCheck, qemuImg, qemuRead, run } from '../support/qemu.js'
import { countOfRun, SeededRandom, seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

/** Chains of each kind. */
const runs = countOfRun('QCOW2_CHAINS', 1)
const seed = seedOfRun()

type Extent = { readonly depth: number; readonly data: boolean; readonly present: boolean }

async function depths(path: string): Promise<Extent[]> {
  return JSON.parse(await qemuImg('map', '--output=json', path)) as Extent[]
}

async function copyChain(from: string, to: string, links: readonly Link[]): Promise<void> {
  await mkdir(to)
  for (const { name } of links) await copyFile(join(from, name), join(to, name))
}

/** All images are sound, for both. */
async function mustBeSound(t: ExecutionContext, folder: string, links: readonly Link[]): Promise<void> {
  for (const { name, format } of links) {
    if (format === 'qcow2') t.is(await qemuCheck(join(folder, name)), '', name)
  }
}

async function ourRead(path: string, format: 'raw' | 'qcow2'): Promise<Buffer> {
  const image = await openImage(path, { readOnly: true, format })
  try {
    return Buffer.from(await image.read({ offset: 0, length: image.size }))
  } finally {
    await image.close()
  }
}

/** What a base shows when an overlay's content has been written into it: it never becomes shorter. */
function committed(base: Buffer, content: Buffer): Buffer {
  const result = shownOver(base, Math.max(base.length, content.length))
  content.copy(result)
  return result
}

for (const clusterSize of chainClusterSizes) {
  for (const version of [2, 3] as const) {
    const kind = `version ${version}, clusters of ${clusterSize} bytes`

    test(`chains of qemu-img are committed by us as by qemu-img: ${kind}`, async (t) => {
      t.timeout(600_000)
      for (let index = 0; index < runs; index++) {
        const random = new SeededRandom((seed + index) >>> 0)
        const folder = await makeFolder(t, { fast: true })
        const links = randomLinks(random, clusterSize, version)
        const [base, mid, top] = links
        const label = `QCOW2_SEED=${seed + index} QCOW2_CHAINS=1 ${JSON.stringify(links)}`
        const made = join(folder, 'made')
        await mkdir(made)
        await makeChain(made, links, random)
        const content = await qemuRead(join(made, top.name))
        const midContent = await qemuRead(join(made, mid.name))
        const baseContent = await qemuRead(join(made, base.name), base.format)

        for (const how of ['empty', 'keep', 'base'] as const) {
          const ours = join(folder, how)
          await copyChain(made, ours, links)
          const path = join(ours, top.name)
          const options = { empty: {}, keep: { keep: true }, base: { base: base.name } }[how]
          const { emptied } = await commitImage(path, options)
          t.is(emptied, how === 'empty', label)
          await mustBeSound(t, ours, links)
          const target = how === 'base' ? base : mid
          const before = how === 'base' ? baseContent : midContent
          const want = committed(before, content)
          t.true((await qemuRead(join(ours, target.name), target.format)).equals(want), `${how}: ${label}`)
          t.true((await ourRead(join(ours, target.name), target.format)).equals(want), `${how}: ${label}`)
          t.true((await qemuRead(path)).equals(content), `${how}: ${label}`)
          if (how === 'empty') {
            t.true(
              (await depths(path)).every(({ depth, present }) => depth > 0 || !present),
              label,
            )
          }

          const theirs = join(folder, `${how}-theirs`)
          await copyChain(made, theirs, links)
          const flags = { empty: [], keep: ['-d'], base: ['-b', base.name] }[how]
          const outcome = await run('qemu-img', ['commit', '-q', ...flags, join(theirs, top.name)])
          // The stock tool has no zeros for the unaligned end of some version 2 images; where it succeeds, it agrees.
          if (outcome.code !== 0) continue
          t.true((await qemuRead(join(theirs, target.name), target.format)).equals(want), `${how}: ${label}`)
          t.true((await ourRead(join(theirs, top.name), 'qcow2')).equals(content), `${how}: ${label}`)
        }
      }
    })

    test(`chains of qemu-img are rebased by us, and ours by qemu-img: ${kind}`, async (t) => {
      t.timeout(600_000)
      for (let index = 0; index < runs; index++) {
        const random = new SeededRandom((seed + index) >>> 0)
        const folder = await makeFolder(t, { fast: true })
        const links = randomLinks(random, clusterSize, version)
        const [base, mid, top] = links
        const [otherBase] = randomLinks(random, clusterSize, version)
        const other = { ...otherBase, name: `other.${otherBase.format}` }
        const label = `QCOW2_SEED=${seed + index} QCOW2_CHAINS=1 ${JSON.stringify([...links, other])}`
        const made = join(folder, 'made')
        await mkdir(made)
        await makeChain(made, links, random)
        await makeLink(made, other, undefined, random)
        const all = [...links, other]
        const content = await qemuRead(join(made, top.name))

        for (const target of [base, mid, other, undefined]) {
          const ours = join(folder, target?.name ?? 'none')
          await copyChain(made, ours, all)
          const path = join(ours, top.name)
          const size = (await readFile(path)).length
          if (target === undefined) await flattenImage(path)
          else await rebaseImage(path, { backingFile: target.name, backingFormat: target.format })
          await mustBeSound(t, ours, all)
          t.true((await qemuRead(path)).equals(content), `onto ${target?.name}: ${label}`)
          const info = JSON.parse(await qemuImg('info', '--output=json', path)) as Record<string, unknown>
          t.is(info['backing-filename'], target?.name)
          t.is(info['backing-filename-format'], target?.format)
          if (target === mid) t.is((await readFile(path)).length, size, 'nothing differs, nothing is copied')
          if (target === undefined) t.true((await depths(path)).every(({ depth }) => depth === 0))

          // And back by the stock tool, which reads what we have left; then by us what that has left.
          await qemuImg('rebase', '-b', mid.name, '-F', mid.format, path)
          t.true((await ourRead(path, 'qcow2')).equals(content), `back from ${target?.name}: ${label}`)
          await rebaseImage(path, { backingFile: other.name, backingFormat: other.format })
          t.true((await qemuRead(path)).equals(content), `to the other: ${label}`)
          t.is(await qemuCheck(path), '', label)
        }
      }
    })
  }
}

test('chains that we have made, frozen live among them, are committed and rebased by qemu-img', async (t) => {
  t.timeout(120_000)
  const folder = await makeFolder(t, { fast: true })
  const path = (name: string): string => join(folder, name)
  const size = 3 * 1024 * 1024 + 512 * 7
  await createImage(path('base'), { size: size - 100 * 512 })
  await createImage(path('top'), { size, backingFile: 'base', backingFormat: 'qcow2', clusterSize: 4096 })
  const content = Buffer.alloc(size)
  const random = new SeededRandom(seed)
  const image = await openImage(path('top'))
  for (const name of ['live-1', 'live-2', undefined]) {
    for (let index = 0; index < 6; index++) {
      const offset = random.integer(size)
      const bytes = random.bytes(Math.min(random.between(1, 200_000), size - offset))
      content.set(bytes, offset)
      await image.write(bytes, offset)
    }
    if (name !== undefined) await image.createOverlay(path(name), { clusterSize: 65536 })
  }
  await image.close()
  t.true((await qemuRead(path('live-2'))).equals(content))
  await qemuImg('commit', '-q', path('live-2'))
  t.true((await ourRead(path('live-1'), 'qcow2')).equals(content))
  await qemuImg('rebase', '-b', 'base', '-F', 'qcow2', path('live-1'))
  t.true((await ourRead(path('live-1'), 'qcow2')).equals(content))
  for (const name of ['base', 'top', 'live-1', 'live-2']) t.is(await qemuCheck(path(name)), '')
})
