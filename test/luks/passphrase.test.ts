import test from 'ava'
import { passphraseBytes, passphraseOption, withPassphrase } from '../../lib/luks/passphrase.js'

const image = { path: 'disk', depth: 0 }

test('text is UTF-8, bytes are copied, a function is asked with the image', async (t) => {
  t.deepEqual(Buffer.from(await passphraseBytes('ü', image)), Buffer.from([0xc3, 0xbc]))
  const own = Uint8Array.of(1, 2)
  const copy = await passphraseBytes(own, image)
  t.deepEqual(copy, own)
  t.not(copy, own)
  t.is((await passphraseBytes(async (asked) => asked.path, image)).length, 4)
})

test('what was lent is wiped, whatever comes of it; what is its owner’s is not', async (t) => {
  const own = Uint8Array.of(1, 2)
  let lent: Uint8Array | undefined
  await withPassphrase(own, image, async (bytes) => {
    lent = bytes
    t.deepEqual(bytes, own)
  })
  t.deepEqual(lent, Uint8Array.of(0, 0))
  t.deepEqual(own, Uint8Array.of(1, 2))
  const failing = withPassphrase('ab', image, async (bytes) => {
    lent = bytes
    throw new Error('no')
  })
  await t.throwsAsync(failing, { message: 'no' })
  t.deepEqual(lent, Uint8Array.of(0, 0))
})

test('what is no passphrase is refused without being told', async (t) => {
  t.throws(() => passphraseOption(12345, 'p'), { code: 'ERR_INVALID_OPTION', message: /^(?!.*12345)/ })
  await t.throwsAsync(passphraseBytes((() => 12345) as never, image), {
    code: 'ERR_INVALID_ARGUMENT',
    message: /^(?!.*12345)/,
  })
})
