import { inspect } from 'node:util'
import test from 'ava'
import { type LuksHeader, parseLuksHeader } from '../../lib/luks/header.js'
import { findKey, type LockedVolume, slotsOpenedBy } from '../../lib/luks/key-slots.js'
import { newVolumeHeader, volumeHeaderBytes, volumeSpec } from '../../lib/luks/new-volume.js'
import { limits } from '../../lib/luks/spec.js'

const spec = volumeSpec({ iterTime: 1 })
const made = newVolumeHeader(spec, Buffer.from('secret'))

async function volume(change: Partial<LuksHeader> = {}): Promise<LockedVolume> {
  const bytes = await made
  const header = parseLuksHeader(bytes, { path: 'disk', offset: 0, areaBytes: volumeHeaderBytes(spec) })
  return {
    header: { ...header, ...change },
    read: async (offset, length) => bytes.slice(offset, offset + length),
    maxIterations: limits.iterations,
    path: 'disk',
  }
}

test('the passphrase of a new volume finds its key, and no other does', async (t) => {
  const { slot, masterKey } = await findKey(await volume(), Buffer.from('secret'))
  t.is(slot, 0)
  t.is(masterKey.length, 64)
  for (const wrong of ['', 'Secret', 'secret ', 'secret\0x']) {
    await t.throwsAsync(findKey(await volume(), Buffer.from(wrong)), { code: 'ERR_WRONG_PASSPHRASE' }, wrong)
  }
  t.deepEqual(await slotsOpenedBy(await volume(), Buffer.from('secret')), [0])
  t.deepEqual(await slotsOpenedBy(await volume(), Buffer.from('other')), [])
})

test('an error says nothing of the passphrase', async (t) => {
  const error = await t.throwsAsync(findKey(await volume(), Buffer.from('shibboleth')))
  const text = inspect(error, { depth: 9, showHidden: true })
  t.notRegex(text, /shibboleth/)
  t.notRegex(text, new RegExp(Buffer.from('shibboleth').toString('hex')))
})

test('more work than is allowed is refused before any is done', async (t) => {
  const most = 2 ** 32 - 1
  const read = (): never => t.fail()
  const { header } = await volume()
  const slots = header.slots.map((slot) => ({ ...slot, iterations: most }))
  await t.throwsAsync(findKey({ ...(await volume({ slots })), read }, Buffer.from('secret')), {
    code: 'ERR_UNSUPPORTED_FEATURE',
    message: /asks for 4294967295 iterations for key slot 0; more than \d+ are not tried/,
  })
  await t.throwsAsync(findKey(await volume({ digestIterations: most }), Buffer.from('secret')), {
    code: 'ERR_UNSUPPORTED_FEATURE',
    message: /for the key's digest/,
  })
})

test('ciphers that node:crypto does not have are refused by name', async (t) => {
  const { header } = await volume()
  for (const cipherAlg of ['serpent-256', 'twofish-256', 'cast5-128'] as const) {
    const other = await volume({ cipher: { ...header.cipher, cipherAlg } })
    await t.throwsAsync(findKey(other, Buffer.from('secret')), {
      code: 'ERR_UNSUPPORTED_FEATURE',
      message: new RegExp(cipherAlg),
    })
  }
})
