import { createCipheriv, createHash, randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import test from 'ava'
import { type CipherSpec, keyBytesOf } from '../../lib/luks/algorithms.js'
import { cipherModes } from '../../lib/luks/names.js'
import { SectorCipher } from '../../lib/luks/sector-cipher.js'

const sectors = 300
const first = 2 ** 32 - 7
const usual = {
  cipherAlg: 'aes-256',
  cipherMode: 'xts',
  ivgenAlg: 'plain64',
  ivgenHashAlg: undefined,
} as const

/** One sector at a time by node:crypto's own modes. */
function reference(spec: CipherSpec, key: Uint8Array, bytes: Uint8Array): Buffer {
  const pieces: Buffer[] = []
  for (let index = 0; index < bytes.length / 512; index++) {
    const vector = Buffer.alloc(16)
    vector.writeBigUInt64LE(BigInt(first + index))
    if (spec.ivgenAlg === 'plain') vector.fill(0, 4)
    if (spec.ivgenAlg === 'essiv') {
      const salt = createHash('sha256').update(key).digest()
      const cipher = createCipheriv('aes-256-ecb', salt, null).setAutoPadding(false)
      cipher.update(vector).copy(vector)
    }
    const name = `${spec.cipherAlg}-${spec.cipherMode}`
    const cipher = createCipheriv(name, key, spec.cipherMode === 'ecb' ? null : vector)
    pieces.push(cipher.setAutoPadding(false).update(bytes.subarray(index * 512, (index + 1) * 512)))
  }
  return Buffer.concat(pieces)
}

test('all modes are those of node:crypto, sector by sector, beyond sector 2^32', (t) => {
  const plain = randomBytes(sectors * 512)
  for (const cipherMode of cipherModes) {
    for (const cipherAlg of ['aes-128', 'aes-256'] as const) {
      for (const ivgenAlg of ['plain', 'plain64', 'essiv'] as const) {
        const ivgenHashAlg = ivgenAlg === 'essiv' ? 'sha256' : undefined
        const spec = { cipherAlg, cipherMode, ivgenAlg, ivgenHashAlg } as const
        const key = randomBytes(keyBytesOf(spec))
        const cipher = new SectorCipher(spec, key)
        const out = new Uint8Array(plain.length)
        cipher.encrypt(plain, out, first)
        t.true(reference(spec, key, plain).equals(out), `${cipherAlg} ${cipherMode} ${ivgenAlg}`)
        cipher.decrypt(out, out, first)
        t.true(plain.equals(out))
      }
    }
  }
})

test('memory may begin anywhere, and the same sector under another number looks different', (t) => {
  const cipher = new SectorCipher(usual, randomBytes(64))
  const memory = randomBytes(2048)
  const plain = memory.subarray(3, 3 + 512)
  const [a, b] = [new Uint8Array(513).subarray(1), new Uint8Array(512)]
  cipher.encrypt(plain, a, 5)
  cipher.encrypt(plain, b, 6)
  t.notDeepEqual(Buffer.from(a), Buffer.from(b))
  cipher.decrypt(a, a, 5)
  t.deepEqual(Buffer.from(a), Buffer.from(plain))
})

test('a cipher shows nothing of its key', (t) => {
  const shown = inspect({ cipher: new SectorCipher(usual, randomBytes(64)) }, { depth: 9, showHidden: true })
  t.regex(shown, /SectorCipher \{\}/)
})
