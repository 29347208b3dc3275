import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { encryptedName, passphrase, secret } from '../support/encrypted.js'
import { runCli } from '../support/cli.js'
import { qemuCheck, qemuImg, qemuIo } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

/** A folder with `disk.qcow2`, the first of whose two data clusters has been discarded. */
async function makeImage(t: ExecutionContext): Promise<string> {
  const folder = await makeFolder(t, { fast: true })
  const path = join(folder, 'disk.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', path, '1M')
  await qemuIo(path, ['write -q -P 1 0 64k', 'write -q -P 2 64k 64k', 'discard 0 64k'], ['-d', 'unmap'])
  return folder
}

test('it says how many bytes were given back', async (t) => {
  const folder = await makeImage(t)
  const { code, stdout, stderr } = await runCli(['compact', 'disk.qcow2'], folder)
  t.is(code, 0)
  t.is(stderr, '')
  t.regex(
    stdout,
    /^Image compacted: \d+ bytes given back \(file 448 KiB -> 384 KiB, on disk \d+ KiB -> \d+ KiB\)\.\n$/,
  )
  t.is(await qemuCheck(join(folder, 'disk.qcow2')), '')
  const again = await runCli(['compact', '-f', 'qcow2', 'disk.qcow2'], folder)
  t.regex(again.stdout, /^Image compacted: 0 bytes given back \(file 384 KiB -> 384 KiB, /)
})

test('as JSON, quietly, and with progress', async (t) => {
  const folder = await makeImage(t)
  const { stdout } = await runCli(['compact', '--output=json', 'disk.qcow2'], folder)
  const report = JSON.parse(stdout) as Record<string, unknown>
  t.like(report, {
    filename: 'disk.qcow2',
    'file-size-before': 458752,
    'file-size-after': 393216,
    'bytes-moved': 65536,
  })
  t.deepEqual(Object.keys(report), [
    'filename',
    'file-size-before',
    'file-size-after',
    'actual-size-before',
    'actual-size-after',
    'bytes-moved',
  ])
  t.deepEqual(await runCli(['compact', '-q', 'disk.qcow2'], folder), { code: 0, stdout: '', stderr: '' })
  t.regex(
    (await runCli(['compact', '-p', 'disk.qcow2'], folder)).stdout,
    /\(0\.00\/100%\)\r[^]*\(100\.00\/100%\)\r\n/,
  )
})

test('what cannot be compacted is said', async (t) => {
  const folder = await makeImage(t)
  await writeFile(join(folder, 'a.raw'), Buffer.alloc(512))
  const failed = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await runCli(['compact', ...args], folder)
    t.is(code, 1)
    return stderr
  }
  t.is(await failed('a.raw'), 'qcow2: Only qcow2 images can be compacted\n')
  t.regex(await failed(), /Expecting one image file name/)
  t.regex(await failed('missing'), /Could not open 'missing': No such file or directory/)
  t.regex(await failed('--output=xml', 'disk.qcow2'), /--output must be used with human or json/)
})

test('an encrypted image is opened by a secret', async (t) => {
  const folder = await makeFolder(t, { fast: true })
  const path = join(folder, 'disk.qcow2')
  const created = await runCli(
    [
      'create',
      '-q',
      '-f',
      'qcow2',
      '--object',
      `secret,id=s0,data=${passphrase}`,
      '-o',
      'encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10',
      path,
      '1M',
    ],
    folder,
  )
  t.is(created.code, 0, created.stderr)
  t.is((await runCli(['compact', path], folder)).code, 1)
  const { code, stderr } = await runCli(['compact', ...secret, '--image-opts', encryptedName(path)], folder)
  t.is(code, 0, stderr)
})
