import test from 'ava'
import { parseImageName } from '../../lib/cli/image-name.js'
import { UsageError } from '../../lib/cli/usage-error.js'

const plain = { format: undefined, imageOptions: false }
const listed = { format: undefined, imageOptions: true }

for (const [text, rules, path, format] of [
  ['disk.qcow2', plain, 'disk.qcow2', undefined],
  ['disk.qcow2', { ...plain, format: 'raw' }, 'disk.qcow2', 'raw'],
  ['file:disk.qcow2', plain, 'disk.qcow2', undefined],
  ['./odd:name', plain, './odd:name', undefined],
  ['/a/b:c', plain, '/a/b:c', undefined],
  ['json:{"driver":"qcow2","file":{"driver":"file","filename":"F"}}', plain, 'F', 'qcow2'],
  ['json:{"file.filename":"F"}', plain, 'F', undefined],
  ['json:{"file.filename":"F"}', { ...plain, format: 'raw' }, 'F', 'raw'],
  ['json:{"driver":"file","filename":"F"}', plain, 'F', 'raw'],
  ['driver=qcow2,file.filename=F', listed, 'F', 'qcow2'],
  ['file.filename=a,,b', listed, 'a,b', undefined],
] as const) {
  test(`${text} names the file ${path}${format === undefined ? '' : `, format ${format}`}`, (t) => {
    const name = parseImageName(text, rules)
    t.is(name.path, path)
    t.is(name.format, format)
    t.is(name.text, text)
  })
}

test('a name may ask for sharing', (t) => {
  t.true(parseImageName('file.filename=F,force-share=on', listed).forceShare)
  t.false(parseImageName('file.filename=F', listed).forceShare)
})

for (const [text, rules, message] of [
  ['', plain, "Could not open '': The 'file' block driver requires a file name"],
  ['nbd:localhost:10809', plain, "Could not open 'nbd:localhost:10809': Unknown protocol 'nbd'"],
  ['F', { ...plain, format: 'vmdk' }, "Could not open 'F': Unknown driver 'vmdk'"],
  ['F', { format: 'raw', imageOptions: true }, '--image-opts and --format are mutually exclusive'],
  [
    'driver=qcow2,file.filename=F,frob=1',
    listed,
    "Could not open 'driver=qcow2,file.filename=F,frob=1': Block format 'qcow2' does not support the option 'frob'",
  ],
  ['driver=qcow2', listed, "Could not open 'driver=qcow2': The 'file' block driver requires a file name"],
] as const) {
  test(`the name '${text}' is refused: ${message}`, (t) => {
    t.throws(() => parseImageName(text, rules), { instanceOf: UsageError, message })
  })
}

test('broken JSON is refused as such', (t) => {
  t.throws(() => parseImageName('json:frob', plain), {
    instanceOf: UsageError,
    message: /^Could not open 'json:frob': Could not parse the JSON options: /,
  })
  t.throws(() => parseImageName('json:[1]', plain), { instanceOf: UsageError, message: /must be an object/ })
  for (const depth of [600, 20_000]) {
    const deep = `json:${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`
    t.throws(() => parseImageName(deep, plain), { instanceOf: UsageError, message: /nested too deeply/ })
  }
})

test('the files of a chain, and a data file, may be named in the place of what the images say', (t) => {
  const list =
    'driver=qcow2,file.filename=T,backing.driver=qcow2,backing.file.filename=B,backing.backing.driver=file,backing.backing.filename=R,data-file.filename=D'
  const { path, chain, dataFile } = parseImageName(list, listed)
  t.is(path, 'T')
  t.deepEqual(chain, [
    { path: 'B', format: 'qcow2' },
    { path: 'R', format: 'raw' },
  ])
  t.is(dataFile, 'D')
  const json =
    'json:{"driver":"qcow2","file":{"driver":"file","filename":"T"},"backing":{"file":{"filename":"B"}},"data-file":{"driver":"file","filename":"D"}}'
  t.like(parseImageName(json, plain), { chain: [{ path: 'B', format: undefined }], dataFile: 'D' })
  t.throws(() => parseImageName('file.filename=T,backing.driver=qcow2', listed), {
    message: /requires a file name/,
  })
  t.throws(() => parseImageName('file.filename=T,backing.file.filename=B,backing.frob=1', listed), {
    message: /does not support the option 'backing.frob'/,
  })
})
