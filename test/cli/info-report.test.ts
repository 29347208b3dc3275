import test from 'ava'
import { infoJson, infoText } from '../../lib/cli/info-report.js'
import type { ImageInfo } from '../../lib/operations/info.js'

const qcow2: NonNullable<ImageInfo['qcow2']> = {
  compat: '1.1',
  compressionType: 'zlib',
  lazyRefcounts: false,
  refcountBits: 16,
  corrupt: false,
  extendedL2: false,
  bitmaps: [{ name: 'b', granularity: 65536, flags: [] }],
}

const image: ImageInfo = {
  path: 'sub/disk.qcow2',
  format: 'qcow2',
  virtualSize: 64 * 2 ** 20,
  actualSize: 200704,
  clusterSize: 65536,
  dirty: true,
  encrypted: true,
  backingFile: 'base.raw',
  fullBackingFile: 'sub/base.raw',
  backingFormat: 'raw',
  snapshots: [
    {
      id: '1',
      name: 'before',
      vmStateSize: 0,
      dateSeconds: 1795386704,
      dateNanoseconds: 5,
      vmClockNanoseconds: 3723004000000n,
      icount: 7n,
    },
  ],
  qcow2,
}

test('the report for people has one fact a line, in the order of qemu-img', (t) => {
  const lines = infoText(image).split('\n')
  t.deepEqual(
    lines.map((line) => line.replace(/:.*/, '')),
    [
      'image',
      'file format',
      'virtual size',
      'disk size',
      'encrypted',
      'cluster_size',
      'cleanly shut down',
      'backing file',
      'backing file format',
      'Snapshot list',
      'ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT',
      lines[11]?.replace(/:.*/, '') ?? '',
      'Format specific information',
      '    compat',
      '    compression type',
      '    lazy refcounts',
      '    bitmaps',
      '        [0]',
      '            flags',
      '            name',
      '            granularity',
      '    refcount bits',
      '    corrupt',
      '    extended l2',
      '',
    ],
  )
  t.regex(lines[11] ?? '', /^1 {9}before {16}0 B \d{4}-\d\d-\d\d \d\d:\d\d:\d\d 01:02:03\.004 {10}7$/)
  t.is(lines[7], 'backing file: base.raw (actual path: sub/base.raw)')
})

test('control characters in names from an image do not reach the terminal', (t) => {
  const evil = infoText({
    ...image,
    backingFile: '\u001b]0;owned\u0007',
    fullBackingFile: '\u001b]0;owned\u0007',
  })
  t.notRegex(evil, /[\u0000-\u0009\u000b-\u001f\u007f]/)
  t.true(evil.includes('owned'))
})

test('the report for programs has the keys in the order of QEMU 7.2', (t) => {
  t.deepEqual(Object.keys(infoJson(image) as object), [
    'backing-filename-format',
    'snapshots',
    'virtual-size',
    'filename',
    'cluster-size',
    'format',
    'actual-size',
    'format-specific',
    'full-backing-filename',
    'encrypted',
    'backing-filename',
    'dirty-flag',
  ])
})

test('a version 2 image says nothing of what it cannot have', (t) => {
  const text = infoText({ ...image, qcow2: { ...qcow2, compat: '0.10' } })
  t.notRegex(text, /lazy refcounts|corrupt|extended l2/)
})
