import { createReadStream, existsSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { cp, mkdir, open, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { compareImages, convertImage, openImage } from '../../lib/index.js'
import { qemuCheck, qemuImg, run } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

async function digest(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const piece of createReadStream(path)) hash.update(piece as Buffer)
  return hash.digest('hex')
}

/** raw -> qcow2 -> raw by us, and the stock tool looks at every step. */
async function thereAndBack(t: ExecutionContext, folder: string, raw: string): Promise<void> {
  const original = await digest(raw)
  for (const options of [
    {},
    { clusterSize: 4096, compat: '1.1' },
    { clusterSize: 2 * 1024 * 1024, compat: '0.10' },
  ] as const) {
    const qcow2 = join(folder, `${basename(raw)}.qcow2`)
    const back = join(folder, `${basename(raw)}.back`)
    await convertImage(raw, qcow2, { sourceFormat: 'raw', format: 'qcow2', overwrite: true, ...options })
    t.is(await qemuCheck(qcow2), '')
    await qemuImg('compare', '-f', 'raw', '-F', 'qcow2', raw, qcow2)
    await convertImage(qcow2, back, { format: 'raw', overwrite: true })
    t.is(await digest(back), original, 'our way back')
    const theirs = join(folder, `${basename(raw)}.theirs`)
    await qemuImg('convert', '-f', 'raw', '-O', 'qcow2', raw, theirs)
    t.true((await compareImages(theirs, qcow2)).identical)
    await convertImage(theirs, back, { format: 'raw', overwrite: true })
    t.is(await digest(back), original, "our reading of the stock tool's image")
  }
}

test('a file system made by mke2fs goes to qcow2 and back without a bit changed, and is sound on the way', async (t) => {
  t.timeout(300_000)
  const folder = await makeFolder(t)
  const files = join(folder, 'files')
  // What is there on every machine that runs this: many small files, and a large one.
  await mkdir(files)
  await cp(fileURLToPath(new URL('../../lib', import.meta.url)), join(files, 'lib'), { recursive: true })
  await cp(process.execPath, join(files, 'node'))
  const raw = join(folder, 'disk.raw')
  const made = await run('mke2fs', ['-q', '-t', 'ext4', '-d', files, raw, '300M'])
  t.is(made.code, 0, made.stderr)
  await rm(files, { recursive: true })
  await thereAndBack(t, folder, raw)
  const checked = await run('e2fsck', ['-fn', join(folder, 'disk.raw.back')])
  t.is(checked.code, 0, checked.stdout + checked.stderr)
})

for (const name of ['grub-rescue-floppy.img', 'grub-rescue-cdrom.iso']) {
  const rescue = join('/usr/lib/grub-rescue', name)
  // The package grub-rescue-pc of Debian has them; the test command of the README installs it.
  const testIfThere = existsSync(rescue) ? test : test.skip
  testIfThere(`the bootable image ${name} goes to qcow2 and back without a bit changed`, async (t) => {
    t.timeout(300_000)
    const folder = await makeFolder(t)
    const raw = join(folder, name)
    await cp(rescue, raw)
    // Disks are made of whole sectors, and so is what comes back.
    const { size } = await stat(raw)
    const file = await open(raw, 'r+')
    await file.truncate(Math.ceil(size / 512) * 512)
    await file.close()
    await thereAndBack(t, folder, raw)
    const disk = await openImage(join(folder, `${name}.qcow2`), { readOnly: true })
    const sector = await disk.read({ offset: 0, length: 512 })
    t.deepEqual([...sector.subarray(510)], [0x55, 0xaa], 'it can be booted')
    await disk.close()
  })
}
