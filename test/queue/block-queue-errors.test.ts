import { execFileSync } from 'node:child_process'
import { chmod, mkdir, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Qcow2Error } from '../../lib/base/errors.js'
import { noSection } from '../../lib/base/units.js'
import { BlockQueue, type BlockQueueOptions } from '../../lib/queue/block-queue.js'
import { runProgram } from '../support/child.js'
import { makeFolder } from '../support/temp-folder.js'

const cached: BlockQueueOptions = { readOnly: false, direct: false, syncPolicy: 'flush', idleMs: 0 }
const unit = 4096

function filled(value: number, length = unit): Uint8Array {
  return new Uint8Array(length).fill(value)
}

async function refusal(
  t: ExecutionContext,
  path: string,
  options: Partial<BlockQueueOptions>,
): Promise<Qcow2Error> {
  return t.throwsAsync(BlockQueue.open(path, { ...cached, ...options }), { instanceOf: Qcow2Error })
}

test('what cannot be opened is refused with a code, the path and the reason', async (t) => {
  const folder = await makeFolder(t)
  const file = join(folder, 'file')
  await writeFile(file, 'x')
  await mkdir(join(folder, 'folder'))
  await symlink(join(folder, 'loop'), join(folder, 'loop'))
  execFileSync('mkfifo', [join(folder, 'pipe')])
  for (const { name, options, code, says } of [
    {
      name: 'missing',
      options: {},
      code: 'ERR_NOT_FOUND',
      says: /^ENOENT: no such file or directory, open '.*missing'$/,
    },
    { name: 'file/below', options: {}, code: 'ERR_NOT_FOUND', says: /^ENOTDIR/ },
    { name: 'folder', options: {}, code: 'ERR_IS_A_DIRECTORY', says: /^EISDIR/ },
    { name: 'folder', options: { readOnly: true }, code: 'ERR_IS_A_DIRECTORY', says: /^EISDIR/ },
    {
      name: 'pipe',
      options: {},
      code: 'ERR_NOT_SUPPORTED',
      says: /neither a regular file nor a block device/,
    },
    { name: 'pipe', options: { readOnly: true }, code: 'ERR_NOT_SUPPORTED', says: /neither a regular file/ },
    { name: 'loop', options: {}, code: 'ERR_IO', says: /^ELOOP/ },
    { name: 'file', options: { create: true }, code: 'ERR_EXISTS', says: /^EEXIST/ },
  ]) {
    const error = await refusal(t, join(folder, name), options)
    t.true(error.code === code, error.message)
    t.regex(error.message, says)
    t.is(error.path, join(folder, name))
  }
  const device = await refusal(t, '/dev/null', {})
  t.is(device.code, 'ERR_NOT_SUPPORTED')
})

test('a file without permission is refused', async (t) => {
  if (process.getuid?.() === 0) {
    t.log('skipped: root may do everything')
    t.pass()
    return
  }
  const path = join(await makeFolder(t), 'file')
  await writeFile(path, 'x')
  await chmod(path, 0o400)
  t.is((await refusal(t, path, {})).code, 'ERR_PERMISSION')
  await (await BlockQueue.open(path, { ...cached, readOnly: true })).close()
})

test('a file system that refuses O_DIRECT gives an error that says so, never the page cache', async (t) => {
  const error = await refusal(t, '/proc/version', { readOnly: true, direct: true })
  t.is(error.code, 'ERR_NOT_SUPPORTED')
  t.regex(error.message, /its file system does not support O_DIRECT/)
})

test('a failed opening leaves nothing behind that could not be opened again', async (t) => {
  const path = join(await makeFolder(t), 'file')
  t.is((await refusal(t, path, {})).code, 'ERR_NOT_FOUND')
  await writeFile(path, filled(7))
  const queue = await BlockQueue.open(path, cached)
  const bytes = filled(0, 1)
  await queue.read(bytes, 0)
  t.is(bytes[0], 7)
  await queue.close()
})

test('a write beyond the limit on file sizes fails alone, a node beyond it poisons', async (t) => {
  const path = join(await makeFolder(t), 'file')
  const program = new URL('./programs/exceed-limit.js', import.meta.url)
  const result = await runProgram(program, [path], { around: ['prlimit', '--fsize=65536'] })
  t.is(result.code, 0, result.stderr)
  const lines = result.stdout.trim().split('\n')
  t.regex(lines[0] ?? '', /^write: ERR_IO EFBIG: file too large, write/)
  t.regex(lines[1] ?? '', /^flush of data: ok/)
  t.regex(lines[2] ?? '', /^flush: ERR_POISONED .*EFBIG.* cause ERR_IO/)
  t.regex(lines[3] ?? '', /^read of the node: 5/)
  t.regex(lines[4] ?? '', /^write: ERR_POISONED/)
  t.regex(lines[5] ?? '', /^flush: ERR_POISONED/)
  t.regex(lines[6] ?? '', /^close: ERR_POISONED/)
  t.regex(lines[7] ?? '', /^close again: ERR_POISONED/)
})

/** A file system of 1 MiB. @returns its folder, or undefined where we may not mount */
async function mountSmall(t: ExecutionContext): Promise<string | undefined> {
  const folder = await makeFolder(t)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'qcow2-test', folder], { stdio: 'pipe' })
  } catch (error) {
    t.log(`skipped: no file system can be mounted here (${String(error).split('\n')[0]})`)
    t.pass()
    return undefined
  }
  t.teardown(() => execFileSync('umount', [folder]))
  return folder
}

test('a full disk fails the write alone; a full disk under metadata is retried once there is room', async (t) => {
  const folder = await mountSmall(t)
  if (folder === undefined) return
  const path = join(folder, 'file')
  const ballast = await BlockQueue.open(join(folder, 'ballast'), { ...cached, create: true })
  await ballast.write(filled(1, 900 * 1024), 0)
  const queue = await BlockQueue.open(path, { ...cached, create: true })
  const first = queue.enqueue(filled(2, 64 * 1024), 0, noSection)
  const second = queue.enqueue(filled(3, 64 * 1024), 64 * 1024, noSection)
  t.is(second, first)

  const failed = await t.throwsAsync(queue.write(filled(1, 512 * 1024), 1024 ** 2), { code: 'ERR_NO_SPACE' })
  t.regex(failed.message, /^ENOSPC: no space left on device, write/)
  await t.throwsAsync(queue.allocate(0, 512 * 1024), { code: 'ERR_NO_SPACE' })

  // What was written of the failed requests is given back, but for what the nodes need.
  await queue.truncate(0)
  await ballast.write(filled(1, 100 * 1024), 900 * 1024)
  await t.throwsAsync(queue.flush(), { code: 'ERR_NO_SPACE' })
  await t.throwsAsync(queue.durable(first), { code: 'ERR_NO_SPACE' })
  t.is(queue.poisoned, undefined)
  t.true(queue.durableSection < first)
  const seen = filled(0, 2)
  await queue.readQueued(seen, 64 * 1024 - 1)
  t.deepEqual([...seen], [2, 3])

  await ballast.truncate(0)
  await queue.flush()
  t.true(queue.durableSection >= first)
  await queue.read(seen, 64 * 1024 - 1)
  t.deepEqual([...seen], [2, 3])
  await queue.close()
  await ballast.close()
})

test('on a full disk waiting for room ends with an error, and closing reports what was lost', async (t) => {
  const folder = await mountSmall(t)
  if (folder === undefined) return
  const ballast = await BlockQueue.open(join(folder, 'ballast'), { ...cached, create: true })
  const limits = { queueBytes: 64 * 1024, create: true }
  const queue = await BlockQueue.open(join(folder, 'file'), { ...cached, ...limits })
  await ballast.write(filled(1, 1024 * 1024), 0)
  queue.enqueue(filled(2, 64 * 1024), 0, noSection)
  await t.throwsAsync(async () => queue.admit(1), { code: 'ERR_NO_SPACE' })
  await t.throwsAsync(queue.close(), { code: 'ERR_NO_SPACE' })
  await ballast.close()
})

test('a tmpfs, which knows no zeroing of ranges, zeroes them all the same', async (t) => {
  const folder = await mountSmall(t)
  if (folder === undefined) return
  const path = join(folder, 'file')
  const queue = await BlockQueue.open(path, { ...cached, create: true })
  await queue.write(filled(7, 64 * 1024), 0)
  await queue.writeZeroes(1000, 10_000, { unmap: false })
  await queue.writeZeroes(20_000, 10_000, { unmap: true })
  await queue.writeZeroes(60 * 1024, 100 * 1024, { unmap: true })
  await queue.punch(40_000, 1000)
  const bytes = filled(9, 64 * 1024)
  await queue.read(bytes, 0)
  const expected = filled(7, 64 * 1024)
  expected
    .fill(0, 1000, 11_000)
    .fill(0, 20_000, 30_000)
    .fill(0, 40_000, 41_000)
    .fill(0, 60 * 1024)
  t.is(Buffer.compare(bytes, expected), 0)
  t.is((await stat(path)).size, 160 * 1024)
  await queue.close()
})
