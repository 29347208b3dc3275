import test from 'ava'
import {
  asksForHelp,
  formattingLine,
  imageShape,
  parseImageSettings,
  settingsHelp,
  sizeSetting,
} from '../../lib/cli/create-options.js'
import { UsageError } from '../../lib/cli/usage-error.js'

const qcow2 = (...lists: string[]) => parseImageSettings('qcow2', lists)

test('all keys are printed in the order of qemu-img, whatever the order in which they were given', (t) => {
  const settings = qcow2(
    'nocow=on,extent_size_hint=1M,refcount_bits=16,lazy_refcounts=on,backing_fmt=raw,backing_file=a.raw,compat=1.1',
    'size=1M,compression_type=zlib,preallocation=off,extended_l2=off,cluster_size=64k',
  )
  t.is(
    formattingLine('o.qcow2', 'qcow2', settings),
    "Formatting 'o.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off preallocation=off compression_type=zlib size=1048576 " +
      'compat=1.1 backing_file=a.raw backing_fmt=raw lazy_refcounts=on refcount_bits=16 nocow=on extent_size_hint=1048576',
  )
})

test('defaults are printed too, and commas in values are doubled', (t) => {
  t.is(
    formattingLine('x', 'qcow2', qcow2('size=64M,backing_file=a,,b,backing_fmt=raw')),
    "Formatting 'x', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=67108864 " +
      'backing_file=a,,b backing_fmt=raw lazy_refcounts=off refcount_bits=16',
  )
  t.is(
    formattingLine('x', 'raw', parseImageSettings('raw', ['size=1k'])),
    "Formatting 'x', fmt=raw size=1024",
  )
})

test('settings become the options of createImage', (t) => {
  const settings = qcow2('compat=v2,cluster_size=4k,preallocation=falloc,size=1G')
  t.like(imageShape('qcow2', settings), {
    format: 'qcow2',
    compat: '0.10',
    clusterSize: 4096,
    refcountBits: 16,
    lazyRefcounts: false,
    preallocation: 'falloc',
  })
  t.is(sizeSetting(settings), 2 ** 30)
  t.is(sizeSetting(qcow2()), undefined)
  t.deepEqual(imageShape('raw', parseImageSettings('raw', ['preallocation=full'])), {
    format: 'raw',
    preallocation: 'full',
  })
})

test('a switch alone is on, with no in front off, and the last word counts', (t) => {
  t.true(imageShape('qcow2', qcow2('lazy_refcounts')).lazyRefcounts)
  t.false(imageShape('qcow2', qcow2('nolazy_refcounts')).lazyRefcounts)
  t.false(imageShape('qcow2', qcow2('lazy_refcounts=on', 'lazy_refcounts=off')).lazyRefcounts)
})

for (const [list, message] of [
  ['frob=1', "Invalid parameter 'frob'"],
  ['toString=1', "Invalid parameter 'toString'"],
  ['refcount_bits=frob', "Parameter 'refcount_bits' expects a number"],
  ['lazy_refcounts=maybe', "Parameter 'lazy_refcounts' expects 'on' or 'off'"],
] as const) {
  test(`-o ${list} is refused while it is read`, (t) => {
    t.throws(() => qcow2(list), { instanceOf: UsageError, message })
  })
}

for (const [list, message] of [
  ['cluster_size=100', 'Cluster size must be a power of two between 512 and 2048k'],
  ['cluster_size=4M', 'Cluster size must be a power of two between 512 and 2048k'],
  ['compat=2', "Parameter 'version' does not accept value '2'"],
  ['refcount_bits=3', 'Refcount width must be a power of two and may not exceed 64 bits'],
  ['preallocation=frob', "Parameter 'preallocation' does not accept value 'frob'"],
  ['compression_type=frob', "Parameter 'compression-type' does not accept value 'frob'"],
  ['backing_fmt=raw', 'Backing format cannot be used without backing file'],
  ['data_file_raw=on', 'data-file-raw requires data-file'],
  [
    'data_file=d.raw,compat=0.10',
    'External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)',
  ],
  [
    'data_file=d.raw,data_file_raw=on,backing_file=b,backing_fmt=raw',
    'Backing file and data-file-raw cannot be used at the same time',
  ],
  ['encrypt.format=luks', "Parameter 'encrypt.key-secret' is required for cipher"],
  ['encrypt.cipher-alg=aes-256', "Parameter 'encrypt.format' is missing"],
  ['encrypt.format=foo', "Parameter 'format' does not accept value 'foo'"],
  ['encrypt.format=luks,encrypt.hash-alg=foo', "Parameter 'hash-alg' does not accept value 'foo'"],
  ['encrypt.format=luks,encrypt.key-secret=s9', "No secret with id 's9'"],
] as const) {
  test(`-o ${list} is refused: no image can have it`, (t) => {
    t.throws(() => imageShape('qcow2', qcow2(list)), { instanceOf: UsageError, message })
  })
}

test('help may be asked for anywhere in a list', (t) => {
  t.true(asksForHelp(['size=1M', 'compat=v2,help']))
  t.true(asksForHelp(['?']))
  t.false(asksForHelp(['size=1M', 'backing_file=help']))
  t.regex(settingsHelp('raw'), /^Supported options:\n(?: {2}\w+=<.*> +- .*\n)+$/)
})
