import test from 'ava'
import { volumeHeaderBytes, volumeSpec } from '../../lib/luks/new-volume.js'

test('defaults are QEMU’s, and areas are as long as its', (t) => {
  t.deepEqual(volumeSpec({}), {
    cipher: { cipherAlg: 'aes-256', cipherMode: 'xts', ivgenAlg: 'plain64', ivgenHashAlg: undefined },
    hash: 'sha256',
    iterTimeMs: 2000,
  })
  t.is(volumeHeaderBytes(volumeSpec({})), 2068480)
  t.is(volumeHeaderBytes(volumeSpec({ cipherAlg: 'aes-128', cipherMode: 'cbc' })), 528384)
})

test('what QEMU cannot open, or node:crypto not do, is refused by name', (t) => {
  const refuse = (options: Parameters<typeof volumeSpec>[0], message: RegExp): void => {
    t.throws(() => volumeSpec(options), { code: 'ERR_NOT_SUPPORTED', message })
  }
  refuse({ cipherAlg: 'serpent-256' }, /serpent-256/)
  refuse({ cipherAlg: 'aes-192', cipherMode: 'cbc' }, /aes-192 with cbc/)
  refuse({ ivgenAlg: 'essiv', ivgenHashAlg: 'sha1' }, /essiv with sha1/)
})
