import type { Args } from './cli-cases.js'

const words = (line: string): Args => line.split(' ').filter((word) => word !== '')

/** `amend` where nothing is written. */
export const amendReadingCases: readonly Args[] = [
  ...[
    '',
    'data.qcow2',
    '-o compat=1.1',
    '-o compat=1.1 a b',
    '-o help data.qcow2',
    '-o ? -f qcow2',
    '-f raw -o help',
    '-o compat=1.1 missing',
    '-o size=1M a.raw',
    '-f raw -o size=1M a.raw',
    '-o compat=1.1 data.qcow2',
    '-p -q -o compat=v3 data.qcow2',
    '-o size=0 data.qcow2',
    '-o data_file_raw=off data.qcow2',
    '-o lazy_refcounts=off,refcount_bits=16 data.qcow2',
    '-o backing_file=data.qcow2,backing_fmt=qcow2 overlay.qcow2',
    ...[
      'compat=0.9 cluster_size=4k encrypt.format=luks refcount_bits=3 refcount_bits=frob frob=1 nocow=on',
      'compat=0.10,refcount_bits=8 compat=0.10,lazy_refcounts=on data_file=x data_file_raw=on size=1000 size=2Mx',
      'backing_file=a.raw,backing_fmt=raw backing_file=',
    ]
      .flatMap(words)
      .map((settings) => `-o ${settings} data.qcow2`),
    '-o backing_file=data.qcow2 overlay.qcow2',
    '-o lazy_refcounts=on version2.qcow2',
    '-o compat=0.10 big.qcow2',
    '-o compat=0.10 zstd.qcow2',
    '-o compat=0.10 marked-corrupt.qcow2',
    '-o refcount_bits=1 snapshots.qcow2',
  ].map((line) => ['amend', ...words(line)]),
]

/** `amend` where something is. */
export const amendWritingCases: readonly (readonly Args[])[] = [
  ...[
    '-o compat=0.10 data.qcow2',
    '-o compat=0.10 preallocated.qcow2',
    '-o compat=0.10 compressed.qcow2',
    '-o compat=0.10,lazy_refcounts=on data.qcow2',
    '-o compat=1.1 version2.qcow2',
    '-o compat=1.1,lazy_refcounts=on version2.qcow2',
    '-o lazy_refcounts=on data.qcow2',
    '-o lazy_refcounts=off big.qcow2',
    '-o size=2M data.qcow2',
    '-p -o size=8M overlay.qcow2',
    '--force -o size=1M -o size=3M data.qcow2',
  ].map((line) => [['amend', ...words(line)]]),
  [words('amend -o lazy_refcounts=on data.qcow2'), words('amend -o compat=0.10 data.qcow2')],
]
