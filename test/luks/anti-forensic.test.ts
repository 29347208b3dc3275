import { randomBytes } from 'node:crypto'
import test from 'ava'
import { hashAlgs } from '../../lib/luks/names.js'
import { mergeKey, splitKey } from '../../lib/luks/anti-forensic.js'

test('a key comes back from all of its stripes, and from nothing less', (t) => {
  for (const hash of hashAlgs) {
    for (const length of [16, 24, 32, 64]) {
      const key = randomBytes(length)
      const all = splitKey(key, 9, hash)
      t.is(all.length, 9 * length)
      t.deepEqual(Buffer.from(mergeKey(all, length, hash)), key, `${hash} ${length}`)
      const at = 4 * length + 1
      all[at] = (all[at] as number) ^ 1
      t.notDeepEqual(Buffer.from(mergeKey(all, length, hash)), key)
    }
  }
})

test('two splits of one key have nothing in common', (t) => {
  const key = randomBytes(32)
  t.notDeepEqual(splitKey(key, 3, 'sha1'), splitKey(key, 3, 'sha1'))
})
