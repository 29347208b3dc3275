import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { amendImage, checkImage, convertImage, createImage, imageInfo, openImage } from '../../lib/index.js'
import {
  passphrase,
  qemuCheckEncrypted,
  qemuCreateEncrypted,
  qemuIoEncrypted,
  qemuReadEncrypted,
} from '../support/encrypted.js'
import { makeFolder } from '../support/temp-folder.js'

const size = 4 * 1024 * 1024

/** Every pair of values of two of the options occurs: cipher, mode, IV generator, hash of keys, bytes of a cluster, version. */
const shapes = [
  ['aes-256', 'xts', 'plain64', 'sha256', 65536, '1.1'],
  ['aes-128', 'xts', 'essiv', 'sha1', 512, '0.10'],
  ['aes-192', 'xts', 'plain', 'sha512', 4096, '1.1'],
  ['aes-256', 'cbc', 'essiv', 'ripemd160', 4096, '0.10'],
  ['aes-128', 'cbc', 'plain64', 'sha512', 65536, '0.10'],
  ['aes-256', 'cbc', 'plain', 'sha1', 2097152, '1.1'],
  ['aes-128', 'ctr', 'plain', 'sha256', 4096, '0.10'],
  ['aes-256', 'ctr', 'essiv', 'sha512', 512, '1.1'],
  ['aes-256', 'ctr', 'plain64', 'sha1', 2097152, '0.10'],
  ['aes-128', 'ecb', 'essiv', 'sha256', 2097152, '1.1'],
  ['aes-256', 'ecb', 'plain64', 'ripemd160', 512, '1.1'],
  ['aes-192', 'xts', 'essiv', 'ripemd160', 65536, '0.10'],
] as const

const encryption = { passphrase }

for (const [cipherAlg, cipherMode, ivgenAlg, hashAlg, clusterSize, compat] of shapes) {
  const title = `${cipherAlg} ${cipherMode} ${ivgenAlg} ${hashAlg}, clusters of ${clusterSize}, ${compat}`

  // The stock tool takes seconds of processor time to measure how fast it is whenever it makes a key: some of its headers will do here, all with QCOW2_ENCRYPTIONS=all.
  const isLong = !['sha256', 'sha1'].includes(hashAlg) || cipherMode === 'ctr'
  const longTest = isLong && process.env['QCOW2_ENCRYPTIONS'] !== 'all' ? test.skip : test

  longTest(`${title}: what the stock tool writes is read, and written on`, async (t) => {
    const path = join(await makeFolder(t), 'disk')
    await qemuCreateEncrypted(path, String(size), [
      `encrypt.cipher-alg=${cipherAlg}`,
      `encrypt.cipher-mode=${cipherMode}`,
      `encrypt.ivgen-alg=${ivgenAlg}`,
      ...(ivgenAlg === 'essiv' ? ['encrypt.ivgen-hash-alg=sha256'] : []),
      `encrypt.hash-alg=${hashAlg}`,
      `cluster_size=${clusterSize}`,
      `compat=${compat}`,
    ])
    await qemuIoEncrypted(path, ['write -P 7 3k 100k', 'write -P 8 1M 130k'])
    const model = Buffer.alloc(size)
    model.fill(7, 3 * 1024, 103 * 1024).fill(8, 1024 ** 2, 1024 ** 2 + 130 * 1024)
    const image = await openImage(path, { encryption })
    t.true(model.equals(await image.read({ offset: 0, length: size })))
    const bytes = randomBytes(77777)
    await image.write(bytes, 99)
    model.set(bytes, 99)
    t.true(model.equals(await image.read({ offset: 0, length: size })))
    await image.close()
    t.true(model.equals(await qemuReadEncrypted(path)))
    t.is(await qemuCheckEncrypted(path), '')
  })

  test(`${title}: what we write is read by the stock tool, and nothing of it stands in the file`, async (t) => {
    const path = join(await makeFolder(t), 'disk')
    await createImage(path, {
      size,
      clusterSize,
      compat,
      encrypt: { format: 'luks', passphrase, cipherAlg, cipherMode, ivgenAlg, hashAlg, iterTime: 1 },
    })
    t.like((await imageInfo(path)).qcow2?.encrypt, { cipherAlg, cipherMode, ivgenAlg, hashAlg })
    const model = Buffer.alloc(size)
    const marker = Buffer.from('this must not stand in the file. ')
    const text = Buffer.alloc(50_000, marker)
    const image = await openImage(path, { encryption })
    for (const offset of [0, 513, 300_001, 2 ** 21 - 3]) {
      const before = Buffer.from(text)
      await image.write(text, offset)
      t.true(before.equals(text), 'the buffer is its owner’s')
      model.set(text, offset)
    }
    t.true(model.equals(await image.read({ offset: 0, length: size })))
    await image.close()
    t.false((await readFile(path)).includes(marker.subarray(0, 16)))
    t.true(model.equals(await qemuReadEncrypted(path)))
    t.is(await qemuCheckEncrypted(path), '')
    await qemuIoEncrypted(path, ['write -P 7 3k 100k', 'write -z 1M 130k'])
    model.fill(7, 3 * 1024, 103 * 1024).fill(0, 1024 ** 2, 1024 ** 2 + 130 * 1024)
    const again = await openImage(path, { encryption, readOnly: true })
    t.true(model.equals(await again.read({ offset: 0, length: size })))
    await again.close()
    t.like(await checkImage(path), { corruptions: 0, leaks: 0, checkErrors: 0 })
  })
}

test('the legacy AES is read, and refused for writing', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk')
  await qemuCreateEncrypted(path, String(size), [], 'aes')
  await qemuIoEncrypted(path, ['write -P 7 3k 100k', 'write -P 8 1M 130k'])
  const model = Buffer.alloc(size)
  model.fill(7, 3 * 1024, 103 * 1024).fill(8, 1024 ** 2, 1024 ** 2 + 130 * 1024)
  await t.throwsAsync(openImage(path, { encryption }), { code: 'ERR_NOT_SUPPORTED', message: /legacy AES/ })
  await t.throwsAsync(openImage(path, { readOnly: true }), { code: 'ERR_PASSPHRASE_REQUIRED' })
  const copy = join(folder, 'copy')
  await convertImage(path, copy, { format: 'raw', encryption })
  t.true(model.equals(await readFile(copy)))
  t.like(await checkImage(path), { corruptions: 0, leaks: 0 })
})

test('an image goes from one encryption to another, and to none', async (t) => {
  const folder = await makeFolder(t)
  const [plain, first, second, back] = ['plain', 'first', 'second', 'back'].map((name) =>
    join(folder, name),
  ) as [string, string, string, string]
  const bytes = Buffer.concat([randomBytes(300_032), Buffer.alloc(size - 600_064), randomBytes(300_032)])
  await writeFile(plain, bytes)
  const encrypt = { format: 'luks', passphrase, iterTime: 1 } as const
  await convertImage(plain, first, { format: 'qcow2', encrypt })
  t.true(bytes.equals(await qemuReadEncrypted(first)))
  let asked = 0
  const other = (): string => {
    asked++
    return 'another one'
  }
  await convertImage(first, second, {
    format: 'qcow2',
    encryption,
    encrypt: { ...encrypt, cipherMode: 'cbc', passphrase: other },
  })
  t.is(asked, 1)
  await convertImage(second, back, { format: 'raw', encryption: { passphrase: 'another one' } })
  t.true(bytes.equals(await readFile(back)))
  await t.throwsAsync(convertImage(plain, join(folder, 'x'), { format: 'qcow2', encrypt, compress: true }), {
    code: 'ERR_NOT_SUPPORTED',
    message: /Compression and encryption/,
  })
})

for (const preallocation of ['metadata', 'falloc', 'full'] as const) {
  for (const compat of ['1.1', '0.10'] as const) {
    test(`preallocation '${preallocation}', ${compat}: the disk reads as zeros, by both`, async (t) => {
      const path = join(await makeFolder(t), 'disk')
      const encrypt = { format: 'luks', passphrase, iterTime: 1 } as const
      await createImage(path, { size: 1_000_448, preallocation, compat, encrypt, clusterSize: 4096 })
      const image = await openImage(path, { encryption })
      t.true(Buffer.alloc(image.size).equals(await image.read({ offset: 0, length: image.size })))
      await image.write(Buffer.alloc(10, 7), 5000)
      await image.close()
      // Zero clusters become plain ones, which hold zeros only as long as they are encrypted.
      if (preallocation === 'metadata' && compat === '1.1')
        await amendImage(path, { compat: '0.10', encryption })
      const model = Buffer.alloc(1_000_448).fill(7, 5000, 5010)
      t.true(model.equals(await qemuReadEncrypted(path)))
      t.is(await qemuCheckEncrypted(path), '')
    })
  }
}
