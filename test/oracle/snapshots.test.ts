import { copyFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { convertImage, createImage, openImage } from '../../lib/index.js'
import { qemuCheck, qemuImg, qemuIo, qemuRead, run } from '../support/qemu.js'
import { addVmState, snapshotEntries } from '../support/snapshot-bytes.js'
import { makeFolder } from '../support/temp-folder.js'

type Shape = {
  readonly compat: '1.1' | '0.10'
  readonly clusterSize: number
  readonly refcountBits: number
  readonly lazy?: boolean
  readonly backing?: boolean
}

const shapes: readonly Shape[] = [
  { compat: '1.1', clusterSize: 512, refcountBits: 16 },
  { compat: '1.1', clusterSize: 4096, refcountBits: 4, backing: true },
  { compat: '1.1', clusterSize: 65536, refcountBits: 8, lazy: true },
  { compat: '1.1', clusterSize: 65536, refcountBits: 64 },
  { compat: '1.1', clusterSize: 2097152, refcountBits: 2 },
  { compat: '0.10', clusterSize: 512, refcountBits: 16 },
  { compat: '0.10', clusterSize: 65536, refcountBits: 16, backing: true },
]

const diskBytes = 3 * 2 ** 20 + 512

async function makeDisk(folder: string, shape: Shape): Promise<string> {
  const path = join(folder, 'disk.qcow2')
  const { compat, clusterSize, refcountBits } = shape
  const backing = join(folder, 'base.raw')
  if (shape.backing === true) await writeFile(backing, Buffer.alloc(2 ** 20, 0xba))
  await createImage(path, {
    size: diskBytes,
    compat,
    clusterSize,
    refcountBits,
    lazyRefcounts: shape.lazy === true,
    ...(shape.backing === true ? { backingFile: 'base.raw', backingFormat: 'raw' } : {}),
  })
  return path
}

const named = (shape: Shape): string =>
  `compat ${shape.compat}, clusters of ${shape.clusterSize}, ${shape.refcountBits} bits${shape.lazy === true ? ', lazy' : ''}${shape.backing === true ? ', over a backing file' : ''}`

/** The contents of a snapshot as the stock tool reads them: it shows as many bytes as the disk has now, which is not smaller. */
async function frozen(path: string, reference: string, size: number): Promise<Buffer> {
  const raw = `${path}.frozen`
  await qemuImg('convert', '-l', reference, '-O', 'raw', path, raw)
  const seen = await readFile(raw)
  return seen.subarray(size).every((byte) => byte === 0) ? seen.subarray(0, size) : seen
}

for (const shape of shapes) {
  test(`snapshots that we make, apply and delete are the stock tool's: ${named(shape)}`, async (t) => {
    t.timeout(300_000)
    const path = await makeDisk(await makeFolder(t), shape)
    const image = await openImage(path)
    await image.write(Buffer.alloc(300_000, 1), 1000)
    await image.writeCompressed(Buffer.alloc(shape.clusterSize, 2), 0)
    const first = Buffer.from(await image.read({ offset: 0, length: image.size }))
    await image.snapshots.create('first')
    await image.write(Buffer.alloc(200_000, 3), 100_000)
    await image
      .discard({ offset: 1_500_000 - (1_500_000 % shape.clusterSize), length: shape.clusterSize })
      .catch(() => undefined)
    if (shape.compat === '1.1') await image.resize(diskBytes + 2 ** 20)
    const second = Buffer.from(await image.read({ offset: 0, length: image.size }))
    await image.snapshots.create('zweiter ✓')
    await image.write(Buffer.alloc(70_000, 4), 0)
    await image.close()
    t.is(await qemuCheck(path), '')
    t.regex(await qemuImg('snapshot', '-l', path), /^1 {9}first .*\n2 {9}zweiter/m)
    t.true((await frozen(path, 'first', first.length)).equals(first))
    t.true((await frozen(path, 'snapshot.id=2', second.length)).equals(second))

    const again = await openImage(path)
    await again.snapshots.apply('first')
    t.is(again.size, first.length)
    await again.write(Buffer.alloc(5000, 5), 2000)
    await again.close()
    t.is(await qemuCheck(path), '')
    const changed = Buffer.from(first)
    changed.fill(5, 2000, 7000)
    t.true((await qemuRead(path)).equals(changed))
    t.true((await frozen(path, 'first', first.length)).equals(first))
    // A disk that is smaller now does not show all of it to the stock tool: to us it does.
    const view = await openImage(path, { readOnly: true, snapshot: '2' })
    t.true(Buffer.from(await view.read({ offset: 0, length: view.size })).equals(second))
    await view.close()

    const last = await openImage(path)
    await last.snapshots.delete('first')
    await last.close()
    t.is(await qemuCheck(path), '')
    t.true((await qemuRead(path)).equals(changed))
    await qemuImg('snapshot', '-a', '2', path)
    t.true((await qemuRead(path)).equals(second))
    await qemuImg('snapshot', '-d', 'zweiter ✓', path)
    t.is(await qemuCheck(path), '')
  })

  test(`snapshots that the stock tool makes we list, read, apply and delete: ${named(shape)}`, async (t) => {
    t.timeout(300_000)
    const path = await makeDisk(await makeFolder(t), shape)
    const write = (pattern: number, offset: number, length: number): Promise<string> =>
      qemuIo(path, [`write -q -P ${pattern} ${offset} ${length}`])
    await write(1, 0, 400_000 - (400_000 % 512))
    await qemuImg('snapshot', '-c', 'one', path)
    const one = await qemuRead(path)
    await write(2, 51_200, 102_400)
    await qemuImg('snapshot', '-c', 'two', path)
    const two = await qemuRead(path)
    await write(3, 0, 1024)

    for (const [reference, expected] of [
      ['one', one],
      [{ id: '2' }, two],
    ] as const) {
      const view = await openImage(path, { readOnly: true, snapshot: reference })
      t.true(Buffer.from(await view.read({ offset: 0, length: view.size })).equals(expected))
      await view.close()
    }
    await convertImage(path, `${path}.raw`, { format: 'raw', snapshot: 'two' })
    t.true((await readFile(`${path}.raw`)).equals(two))

    const image = await openImage(path)
    t.deepEqual(
      (await image.snapshots.list()).map(({ id, name, diskSize }) => [id, name, diskSize]),
      [
        ['1', 'one', BigInt(diskBytes)],
        ['2', 'two', BigInt(diskBytes)],
      ],
    )
    await image.snapshots.apply('one')
    t.true(Buffer.from(await image.read({ offset: 0, length: image.size })).equals(one))
    await image.snapshots.delete('two')
    await image.write(Buffer.alloc(3000, 9), 0)
    await image.close()
    t.is(await qemuCheck(path), '')
    t.true((await frozen(path, 'one', one.length)).equals(one))
    const after = Buffer.from(one)
    after.fill(9, 0, 3000)
    t.true((await qemuRead(path)).equals(after))
  })
}

for (const size of [2 ** 20, 5 * 2 ** 32]) {
  test(`a VM state of ${size} bytes, an instruction count and extra data of others are kept`, async (t) => {
    const folder = await makeFolder(t)
    const path = join(folder, 'disk.qcow2')
    await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4096', path, '8M')
    await qemuIo(path, ['write -q -P 1 0 64k'])
    await qemuImg('snapshot', '-c', 'with state', path)
    await addVmState(path, { bytes: size, icount: 77n, moreExtra: Buffer.from('of another program') })
    t.is(await qemuCheck(path), '')
    const before = await qemuRead(path)
    const stored = snapshotEntries(await readFile(path))[0] as Buffer

    const image = await openImage(path)
    const [listed] = await image.snapshots.list()
    t.is(listed?.vmStateSize, size)
    t.is(listed?.icount, 77n)
    await image.write(Buffer.alloc(10_000, 5), 0)
    await image.snapshots.create('another')
    t.true(stored.equals(snapshotEntries(await readFile(path))[0] as Buffer), 'its entry is kept to the byte')
    await image.snapshots.apply('with state')
    t.true(Buffer.from(await image.read({ offset: 0, length: image.size })).equals(before))
    await image.close()
    t.is(await qemuCheck(path), '')
    t.is(await qemuImg('snapshot', '-l', path).then((text) => /with state.* 77$/m.test(text)), true)

    // The stock tool maps the state behind the disk when it applies the snapshot: a larger disk must not show it.
    await copyFile(path, `${path}.applied`)
    await qemuImg('snapshot', '-a', 'with state', `${path}.applied`)
    const applied = await openImage(`${path}.applied`)
    await applied.resize(64 * 2 ** 20)
    t.true((await applied.read({ offset: 8 * 2 ** 20, length: 56 * 2 ** 20 })).every((byte) => byte === 0))
    await applied.snapshots.create('larger')
    await applied.close()
    t.is(await qemuCheck(`${path}.applied`), '')

    const last = await openImage(path)
    await last.snapshots.delete('with state')
    await last.snapshots.delete('another')
    await last.close()
    t.is(await qemuCheck(path), '')
    t.true((await qemuRead(path)).equals(before))
  })
}

test('with one bit a count there is no snapshot; with two there are two; nothing is left behind by the refused one', async (t) => {
  const folder = await makeFolder(t)
  for (const [refcountBits, most] of [
    [1, 0],
    [2, 2],
  ] as const) {
    const path = join(folder, `${refcountBits}.qcow2`)
    await createImage(path, { size: 2 ** 20, refcountBits })
    const image = await openImage(path)
    await image.write(Buffer.alloc(65536, 1), 0)
    for (let made = 0; made < most; made++) await image.snapshots.create(`${made}`)
    await t.throwsAsync(image.snapshots.create('too many'), {
      code: 'ERR_NOT_SUPPORTED',
      message: /refcount of \d bits/,
    })
    t.is((await image.snapshots.list()).length, most)
    await image.close()
    t.is(await qemuCheck(path), '')
  }
})

test('applying a snapshot is refused while bitmaps say what has changed, and they stay', async (t) => {
  const path = join(await makeFolder(t), 'disk.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '1M')
  await qemuImg('snapshot', '-c', 'one', path)
  await qemuImg('bitmap', '--add', path, 'changes')
  const image = await openImage(path)
  await t.throwsAsync(image.snapshots.apply('one'), { message: /active dirty bitmaps/ })
  await t.throwsAsync(image.snapshots.delete('none'), { code: 'ERR_SNAPSHOT_NOT_FOUND' })
  await image.close()
  t.regex(await qemuImg('info', path), /changes/)
  const { stderr } = await run('qemu-img', ['snapshot', '-a', 'one', path])
  t.regex(stderr, /active dirty bitmaps/)
})
