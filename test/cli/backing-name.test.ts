import { resolve } from 'node:path'
import test from 'ava'
import { storedBackingName } from '../../lib/cli/backing-name.js'

const json = (properties: object): string => `json:${JSON.stringify(properties)}`

for (const [text, image, expected] of [
  ['base', 'sub/image', 'base'],
  ['./a:b', 'image', './a:b'],
  ['file:base', 'image', 'base'],
  ['file:sub/base', 'sub/image', 'base'],
  ['file:sub/a:b', 'sub/image', './a:b'],
  ['file:base', 'sub/image', resolve('base')],
  ['file:/base', 'sub/image', '/base'],
  [json({ driver: 'qcow2', file: { driver: 'file', filename: 'base' } }), 'image', 'base'],
  [json({ driver: 'qcow2', 'file.filename': '/base' }), 'image', '/base'],
  [json({ 'file.filename': 'sub/base' }), 'sub/image', 'base'],
] as const) {
  test(`an image at ${image} stores ${expected} for ${text}`, (t) => {
    t.is(storedBackingName(text, image, 'qcow2'), expected)
  })
}

for (const text of [
  'frob:base',
  'json:frob',
  json({ driver: 'qcow2', 'file.filename': 'base', 'encrypt.key-secret': 's' }),
  json({ driver: 'raw', 'file.filename': 'base' }),
  json({ driver: 'qcow2', 'file.filename': 'base', 'read-only': true }),
]) {
  test(`no image can store ${text}`, (t) => {
    t.throws(() => storedBackingName(text, 'image', 'qcow2'), { name: 'UsageError' })
  })
}
