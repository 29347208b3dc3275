import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { createImage, imageInfo, openImage } from '../../lib/index.js'
import { qemuImg } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

const encrypt = { format: 'luks', passphrase: 'one', iterTime: 1 } as const

async function slots(path: string): Promise<string> {
  const encryption = (await imageInfo(path)).qcow2?.encrypt
  return encryption?.format === 'luks'
    ? encryption.slots.map(({ active }) => (active ? '1' : '0')).join('')
    : ''
}

function qemuOpens(path: string, passphrase: string): Promise<unknown> {
  const secret = ['--object', `secret,id=s0,data=${passphrase}`]
  return qemuImg(
    'map',
    '--output=json',
    ...secret,
    '--image-opts',
    `driver=qcow2,file.filename=${path},encrypt.key-secret=s0`,
  )
}

test('passphrases come and go while the disk is used, and the stock tool knows them', async (t) => {
  const path = join(await makeFolder(t), 'disk')
  await createImage(path, { size: 1024 ** 2, encrypt })
  // So that the stock tool may look meanwhile.
  const image = await openImage(path, { encryption: { passphrase: 'one' }, locking: 'off' })
  const writing = image.write(Buffer.alloc(5000, 7), 3)
  t.is(await image.encryption.addKey({ currentPassphrase: 'one', passphrase: 'two', iterTime: 1 }), 1)
  const third = { currentPassphrase: () => 'two', passphrase: Buffer.from('three'), keySlot: 6, iterTime: 1 }
  t.is(await image.encryption.addKey(third), 6)
  await writing
  t.is(await slots(path), '11000010')
  for (const name of ['one', 'two', 'three']) await qemuOpens(path, name)
  t.deepEqual(await image.encryption.removeKey({ passphrase: 'one' }), [0])
  t.deepEqual(await image.encryption.removeKey({ keySlot: 6, passphrase: 'three' }), [6])
  t.is(await slots(path), '01000000')
  await t.throwsAsync(qemuOpens(path, 'one'), { message: /Invalid password/ })
  await qemuOpens(path, 'two')
  await image.close()
  const again = await openImage(path, { encryption: { passphrase: 'two' } })
  t.true((await again.read({ offset: 3, length: 5000 })).every((byte) => byte === 7))
  await again.close()
})

test('what would lock everybody out, or is not so, is refused, and changes nothing', async (t) => {
  const folder = await makeFolder(t)
  const path = join(folder, 'disk')
  await createImage(path, { size: 1024 ** 2, encrypt })
  const image = await openImage(path, { encryption: { passphrase: 'one' } })
  const { encryption } = image
  const before = await readFile(path)
  const cases: [Promise<unknown>, string, RegExp?][] = [
    [encryption.removeKey({ passphrase: 'one' }), 'ERR_NOT_SUPPORTED', /refusing operation/],
    [encryption.removeKey({ keySlot: 0 }), 'ERR_NOT_SUPPORTED', /only active keyslot 0/],
    [encryption.removeKey({ keySlot: 3 }), 'ERR_NOT_SUPPORTED', /already erased/],
    [encryption.removeKey({ passphrase: 'two' }), 'ERR_WRONG_PASSPHRASE'],
    [encryption.removeKey({ keySlot: 0, passphrase: 'two' }), 'ERR_WRONG_PASSPHRASE'],
    [encryption.removeKey({}), 'ERR_INVALID_OPTION'],
    [encryption.removeKey({ keySlot: 8 }), 'ERR_OUT_OF_RANGE'],
    [encryption.addKey({ currentPassphrase: 'two', passphrase: 'x' }), 'ERR_WRONG_PASSPHRASE'],
    [
      encryption.addKey({ currentPassphrase: 'one', passphrase: 'x', keySlot: 0 }),
      'ERR_NOT_SUPPORTED',
      /erase it first/,
    ],
    [encryption.addKey({ currentPassphrase: 'one' } as never), 'ERR_INVALID_OPTION'],
  ]
  for (const [attempt, code, message] of cases)
    await t.throwsAsync(attempt, { code, ...(message === undefined ? {} : { message }) }, String(message))
  await image.close()
  t.true(before.equals(await readFile(path)))
  const plain = join(folder, 'plain')
  await createImage(plain, { size: 512 })
  const other = await openImage(plain)
  await t.throwsAsync(other.encryption.removeKey({ keySlot: 0 }), { code: 'ERR_NOT_SUPPORTED' })
  await other.close()
})

test('an overlay of an encrypted disk is encrypted, unless it is said not to be', async (t) => {
  const folder = await makeFolder(t)
  const image = await (async () => {
    await createImage(join(folder, 'base'), { size: 1024 ** 2, encrypt })
    return openImage(join(folder, 'base'), { encryption: { passphrase: 'one' } })
  })()
  await image.write(Buffer.alloc(70_000, 1), 0)
  await t.throwsAsync(image.createOverlay(join(folder, 'a')), {
    code: 'ERR_INVALID_OPTION',
    message: /is encrypted/,
  })
  await image.createOverlay(join(folder, 'b'), { encrypt: { ...encrypt, passphrase: 'two' } })
  await image.write(Buffer.from('a secret'), 50_000)
  await image.close()
  t.false((await readFile(join(folder, 'b'))).includes('a secret'))
  const passphrase = ({ depth }: { depth: number }): string => (depth === 0 ? 'two' : 'one')
  const again = await openImage(join(folder, 'b'), { readOnly: true, encryption: { passphrase } })
  t.is(Buffer.from(await again.read({ offset: 49_999, length: 10 })).toString('latin1'), '\x01a secret\x01')
  await again.close()
})
