import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { createImage, imageInfo, imageInfoChain } from '../../lib/index.js'
import { qemuImg } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

test('a raw image has a size and nothing more to say', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size: 1024 * 1024, format: 'raw' })
  t.deepEqual(await imageInfo(path), { path, format: 'raw', virtualSize: 1024 * 1024, actualSize: 0 })
})

test('what it says is what the stock tool says', async (t) => {
  const folder = await makeFolder(t)
  for (const options of [
    '',
    'compat=0.10',
    'refcount_bits=1,cluster_size=4096',
    'lazy_refcounts=on',
    'compression_type=zstd',
  ]) {
    const path = join(folder, 'disk')
    await qemuImg('create', '-q', '-f', 'qcow2', ...(options === '' ? [] : ['-o', options]), path, '5M')
    const theirs = JSON.parse(await qemuImg('info', '--output=json', path)) as {
      'virtual-size': number
      'actual-size': number
      'cluster-size': number
      'format-specific': { data: Record<string, unknown> }
    }
    const info = await imageInfo(path)
    const data = theirs['format-specific'].data
    t.is(info.virtualSize, theirs['virtual-size'])
    t.is(info.actualSize, theirs['actual-size'])
    t.is(info.clusterSize, theirs['cluster-size'])
    t.is(info.qcow2?.compat, data['compat'] as '1.1')
    t.is(info.qcow2?.refcountBits, data['refcount-bits'] as number)
    t.is(info.qcow2?.compressionType, data['compression-type'] as 'zlib')
    // The stock tool does not say what version 2 cannot have.
    t.is(info.qcow2?.lazyRefcounts, (data['lazy-refcounts'] as boolean | undefined) ?? false)
  }
})

test('images that cannot be opened can still be told about', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk')
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'extended_l2=on', path, '1M')
  t.true((await imageInfo(path)).qcow2?.extendedL2)
  await qemuImg(
    'create',
    '-q',
    '-f',
    'qcow2',
    '-o',
    `data_file=${join(folder, 'data')},data_file_raw=on`,
    path,
    '1M',
  )
  t.like((await imageInfo(path)).qcow2, { dataFile: join(folder, 'data'), dataFileRaw: true })
  const secret = [
    '--object',
    'secret,id=s,data=abc',
    '-o',
    'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10',
  ]
  await qemuImg('create', '-q', '-f', 'qcow2', ...secret, path, '1M')
  const encrypted = await imageInfo(path)
  t.true(encrypted.encrypted)
  const { encrypt } = encrypted.qcow2 ?? {}
  t.like(encrypt, { format: 'luks', cipherAlg: 'aes-256', cipherMode: 'xts', ivgenAlg: 'plain64' })
  t.true(encrypt?.format === 'luks' && encrypt.slots.filter(({ active }) => active).length === 1)
})

test('references are told, never followed, and nothing is written', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  const evil = 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}'
  await createImage(path, { size: 512, backingFile: evil, backingFormat: 'raw', unsafe: true })
  const before = await readFile(path)
  t.like(await imageInfo(path), { backingFile: evil, fullBackingFile: evil, backingFormat: 'raw' })
  t.true((await readFile(path)).equals(before))
  await t.throwsAsync(imageInfoChain(path, { backing: 'allow' }), { code: 'ERR_BACKING_DENIED' })
})

test('a chain is told from the top to the bottom, through the gate', async (t) => {
  const folder = await makeFolder(t)
  const names = ['c', 'b', 'a'].map((name) => join(folder, name))
  await createImage(join(folder, 'a'), { size: 512, format: 'raw' })
  await createImage(join(folder, 'b'), { backingFile: 'a', backingFormat: 'raw' })
  await createImage(join(folder, 'c'), { backingFile: 'b', backingFormat: 'qcow2' })
  const chain = await imageInfoChain(join(folder, 'c'))
  t.deepEqual(
    chain.map(({ path, format }) => [path, format]),
    [
      [names[0], 'qcow2'],
      [names[1], 'qcow2'],
      [names[2], 'raw'],
    ],
  )
  await t.throwsAsync(imageInfoChain(join(folder, 'c'), { backing: 'deny' }), { code: 'ERR_BACKING_DENIED' })
  await createImage(join(folder, 'a'), {
    size: 512,
    backingFile: 'c',
    backingFormat: 'qcow2',
    overwrite: true,
  })
  await createImage(join(folder, 'b'), {
    size: 512,
    backingFile: 'a',
    backingFormat: 'qcow2',
    overwrite: true,
  })
  await t.throwsAsync(imageInfoChain(join(folder, 'c')), { code: 'ERR_BACKING_LOOP' })
})

test('the space that a file takes is told, not its length', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size: 64 * 1024 * 1024, preallocation: 'metadata' })
  const info = await imageInfo(path)
  t.is(info.actualSize, (await stat(path)).blocks * 512)
  t.true(info.actualSize < 1024 * 1024)
})
