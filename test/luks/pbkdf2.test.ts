import test from 'ava'
import { deriveKey, iterationsFor } from '../../lib/luks/pbkdf2.js'

test('keys are those of RFC 6070', async (t) => {
  const from = { hash: 'sha1', salt: Buffer.from('salt'), iterations: 4096 } as const
  const key = await deriveKey(Buffer.from('password'), from, 20)
  t.is(Buffer.from(key).toString('hex'), '4b007901b765489abead49d926f721d065a429c1')
})

test('more time is more iterations, and none is never fewer than a thousand', async (t) => {
  const few = await iterationsFor(0, 'sha256', 32)
  t.is(few, 1000)
  t.true((await iterationsFor(400, 'sha256', 32)) > few)
})
