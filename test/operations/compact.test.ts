import { spawn } from 'node:child_process'
import { copyFile, readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { checkImage, compactImage, createImage, MemoryFile, openImage } from '../../lib/index.js'
import { cliPath } from '../support/cli.js'
import { fileHash, shownBy } from '../support/compact-image.js'
import { encryptedName, passphrase, secret } from '../support/encrypted.js'
import { qemuCheck, qemuCheckOf, qemuImg, qemuIo } from '../support/qemu.js'
import { addVmState } from '../support/snapshot-bytes.js'
import { makeFolder } from '../support/temp-folder.js'

const mib = 2 ** 20

/** An image every other part of which has been given up again. */
async function halfEmpty(
  t: ExecutionContext,
  options: { fast?: boolean; clusterSize?: number; size?: number } = {},
): Promise<string> {
  const { fast = true, clusterSize = 65536, size = 16 * mib } = options
  const path = join(await makeFolder(t, { fast }), 'disk.qcow2')
  await createImage(path, { size, clusterSize })
  const image = await openImage(path)
  for (let at = 0; at < size; at += mib) await image.write(new Uint8Array(mib).fill(1 + at / mib), at)
  for (let at = 0; at < size; at += 2 * clusterSize) await image.discard({ offset: at, length: clusterSize })
  await image.close()
  return path
}

test('the file becomes shorter, takes less space, and shows what it showed', async (t) => {
  const path = await halfEmpty(t)
  const tool = ['-f', 'qcow2', path]
  const before = await shownBy(path, tool)
  const reports: string[] = []
  const outcome = await compactImage(path, { onProgress: ({ phase }) => reports.push(phase) })
  t.is(outcome.lengthAfter, (await stat(path)).size)
  t.true(outcome.lengthAfter < outcome.lengthBefore * 0.52, JSON.stringify(outcome))
  t.true(outcome.allocatedAfter <= outcome.lengthAfter)
  t.true(outcome.moved > 3 * mib && outcome.moved < 5 * mib)
  t.is(await qemuCheck(path), '')
  t.deepEqual(await shownBy(path, tool), before)
  t.is(reports.at(-1), 'compact')
})

test('an image in memory becomes smaller in memory', async (t) => {
  const path = await halfEmpty(t)
  const memory = MemoryFile.from(await readFile(path))
  const before = await shownBy(path, ['-f', 'qcow2', path])
  const outcome = await compactImage(memory)
  t.is(outcome.lengthAfter, memory.length)
  t.is(outcome.allocatedAfter, memory.heldBytes)
  t.true(memory.heldBytes < outcome.lengthBefore * 0.52, JSON.stringify(outcome))
  await writeFile(path, memory.bytes())
  t.is(await qemuCheck(path), '')
  t.deepEqual(await shownBy(path, ['-f', 'qcow2', path]), before)
})

test('what stands at the end of the file does not keep it long: refcount blocks, L1 tables, snapshots', async (t) => {
  const path = join(await makeFolder(t, { fast: true }), 'disk.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512,refcount_bits=64', path, '20M')
  // Everything that grows stands behind what it has outgrown.
  await qemuIo(path, ['write -q -P 1 0 4M', 'write -q -P 2 19M 64k'])
  await qemuImg('snapshot', '-c', 'one', path)
  await qemuIo(path, ['discard 0 4M', 'write -q -P 3 10M 5k'], ['-d', 'unmap'])
  await qemuImg('snapshot', '-d', 'one', path)
  await qemuImg('snapshot', '-c', 'two', path)
  await qemuImg('resize', '-q', path, '40M')
  const before = await shownBy(path, ['-f', 'qcow2', path])
  const { lengthBefore, lengthAfter } = await compactImage(path)
  t.true(lengthBefore > 4 * mib && lengthAfter < 300_000, `${lengthBefore} -> ${lengthAfter}`)
  t.is(await qemuCheck(path), '')
  t.deepEqual(await shownBy(path, ['-f', 'qcow2', path]), before)
})

test('a VM state, and what other programs say of a snapshot, stay', async (t) => {
  const path = join(await makeFolder(t, { fast: true }), 'disk.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', path, '8M')
  await qemuIo(path, ['write -q -P 1 0 1M'])
  await qemuImg('snapshot', '-c', 'one', path)
  await addVmState(path, { bytes: 8192, icount: 77n, moreExtra: Buffer.from('of another program') })
  await qemuIo(path, ['write -q -P 2 0 1M', 'discard 0 900k'], ['-d', 'unmap'])
  const before = await shownBy(path, ['-f', 'qcow2', path])
  // By sectors: a time of day may have such a byte too, also in a table that is no longer used.
  const sectors = (file: Buffer): Buffer[] =>
    Array.from({ length: Math.floor(file.length / 512) }, (_, i) => file.subarray(512 * i, 512 * (i + 1)))
  const state = (file: Buffer): number =>
    sectors(file).filter((sector) => sector.every((byte) => byte === 0x77)).length
  t.is(state(await readFile(path)), 16)
  const { moved } = await compactImage(path)
  t.true(moved > 0)
  t.is(await qemuCheck(path), '')
  t.deepEqual(await shownBy(path, ['-f', 'qcow2', path]), before)
  t.is(state(await readFile(path)), 16)
})

test('a file that ends within its last cluster', async (t) => {
  const path = join(await makeFolder(t, { fast: true }), 'disk.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '1M')
  await qemuIo(
    path,
    ['write -q -P 1 0 64k', 'write -q -P 2 64k 64k', 'write -q -P 3 128k 512', 'discard 0 64k'],
    ['-d', 'unmap'],
  )
  const { size } = await stat(path)
  await truncate(path, size - 65536 + 512)
  const before = await shownBy(path, ['-f', 'qcow2', path])
  const { moved } = await compactImage(path)
  t.is(moved, 65536)
  t.is(await qemuCheck(path), '')
  t.deepEqual(await shownBy(path, ['-f', 'qcow2', path]), before)
})

test('an encrypted image takes its passphrase, and is decrypted in its new places', async (t) => {
  const path = join(await makeFolder(t, { fast: true }), 'disk.qcow2')
  await createImage(path, {
    size: 4 * mib,
    clusterSize: 4096,
    encrypt: { format: 'luks', passphrase, iterTime: 1 },
  })
  const encryption = { passphrase }
  const image = await openImage(path, { encryption })
  await image.write(new Uint8Array(mib).fill(5), 0)
  await image.write(new Uint8Array(mib).fill(6), 2 * mib)
  await image.discard({ offset: 0, length: mib / 2 })
  await image.close()
  const tool = [...secret, '--image-opts', encryptedName(path)]
  const before = await shownBy(path, tool, { encryption })
  await t.throwsAsync(compactImage(path), { code: 'ERR_PASSPHRASE_REQUIRED' })
  await t.throwsAsync(compactImage(path, { encryption: { passphrase: 'another' } }), {
    code: 'ERR_WRONG_PASSPHRASE',
  })
  const { moved } = await compactImage(path, { encryption })
  t.is(moved, mib / 2)
  t.is(await qemuCheckOf(tool), '')
  t.deepEqual(await shownBy(path, tool, { encryption }), before)
})

test('an encrypted image whose clusters are in a data file needs no passphrase', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const path = join(folder, 'disk.qcow2')
  const size = 64 * mib
  await createImage(path, {
    size,
    clusterSize: 4096,
    dataFile: 'data.raw',
    encrypt: { format: 'luks', passphrase, iterTime: 1 },
  })
  const options = { encryption: { passphrase }, dataFile: 'same-directory' } as const
  const image = await openImage(path, options)
  // An L2 table for each 2 MiB, of which the first ones are dropped.
  for (let at = 0; at < size; at += 2 * mib) await image.write(new Uint8Array(4096).fill(5), at)
  await image.resize(size / 2, { shrink: true })
  for (let at = 0; at < size / 2; at += 2 * mib) await image.write(new Uint8Array(4096).fill(6), at)
  await image.close()
  const data = await fileHash(join(folder, 'data.raw'))
  const before = await stat(path)
  await compactImage(path)
  t.true((await stat(path)).blocks <= before.blocks)
  t.is(await fileHash(join(folder, 'data.raw')), data)
  t.like(await checkImage(path), { corruptions: 0, leaks: 0 })
  const again = await openImage(path, options)
  for (let at = 0; at < size / 2; at += 2 * mib)
    t.deepEqual(new Uint8Array(await again.read({ offset: at, length: 4096 })), new Uint8Array(4096).fill(6))
  await again.close()
})

test('the image is refused while somebody else uses it, and a raw one always', async (t) => {
  const path = await halfEmpty(t)
  const hash = await fileHash(path)
  const image = await openImage(path, { readOnly: true })
  await t.throwsAsync(compactImage(path), { code: 'ERR_IMAGE_LOCKED' })
  await image.close()
  t.is(await fileHash(path), hash)
  const raw = join(await makeFolder(t), 'disk.raw')
  await writeFile(raw, Buffer.alloc(512))
  await t.throwsAsync(compactImage(raw), {
    code: 'ERR_NOT_SUPPORTED',
    message: 'Only qcow2 images can be compacted',
  })
  await t.throwsAsync(compactImage(join(raw, '..', 'missing')), { code: 'ERR_NOT_FOUND' })
  await t.throwsAsync(compactImage(path, { formt: 'qcow2' } as never), { code: 'ERR_INVALID_OPTION' })
  await t.throwsAsync(compactImage(path, { signal: AbortSignal.abort(new Error('enough')) }), {
    message: 'enough',
  })
})

test('a backing file and a data file are not opened', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const path = join(folder, 'disk.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', 'missing', '-F', 'raw', path, '1M')
  t.is((await compactImage(path)).moved, 0)
})

test('O_DIRECT and writethrough do as well', async (t) => {
  for (const cache of ['none', 'directsync', 'unsafe'] as const) {
    const path = await halfEmpty(t, { fast: false, size: 4 * mib, clusterSize: 4096 })
    const before = await shownBy(path, ['-f', 'qcow2', path])
    await compactImage(path, { cache })
    t.is(await qemuCheck(path), '')
    t.deepEqual(await shownBy(path, ['-f', 'qcow2', path]), before)
  }
})

test('killed in the middle, the image is whole, and the next run finishes', async (t) => {
  const original = await halfEmpty(t, { size: 24 * mib, clusterSize: 4096 })
  const path = join(original, '..', 'killed.qcow2')
  const before = await shownBy(original, ['-f', 'qcow2', original])
  delete before['info']
  const shown = async (): Promise<Record<string, string>> => {
    const { info: _, ...rest } = await shownBy(path, ['-f', 'qcow2', path])
    return rest
  }
  let killed = 0
  for (const delayMs of [0, 20, 60]) {
    await copyFile(original, path)
    const signal = await new Promise<string | null>((resolve, reject) => {
      const child = spawn(process.execPath, [cliPath, 'compact', '--json-progress', path], {
        stdio: ['ignore', 'ignore', 'pipe'],
      })
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        if (text.includes('"compact"')) setTimeout(() => child.kill('SIGKILL'), delayMs)
      })
      child.on('error', reject)
      child.on('close', (_code, signalName) => resolve(signalName))
    })
    if (signal === 'SIGKILL') killed++
    const found = await checkImage(path)
    t.is(found.supported && found.corruptions + found.checkErrors, 0)
    t.deepEqual(await shown(), before)
    await compactImage(path)
    t.is(await qemuCheck(path), '')
    t.deepEqual(await shown(), before)
    t.true((await stat(path)).size < 13 * mib)
  }
  t.true(killed > 0)
})
