import { join } from 'node:path'
import type { CreateOptions, OpenOptions } from '../../lib/index.js'
import type { Choices, Row } from './coverage.js'

/** All that an image can be, in the words of `qemu-img create -o` where there is one. */
export const choices = {
  version: [3, 2],
  clusterSize: [65536, 512, 1024, 2048, 4096, 8192, 16384, 32768, 131072, 262144, 524288, 1048576, 2097152],
  refcountBits: [16, 1, 2, 4, 8, 32, 64],
  compressionType: ['zlib', 'zstd'],
  compressed: ['no', 'yes'],
  backing: ['none', 'raw shorter', 'qcow2 shorter', 'qcow2 longer'],
  preallocation: ['off', 'metadata', 'falloc', 'full'],
  lazyRefcounts: ['off', 'on'],
  extendedL2: ['off', 'on'],
  snapshot: ['no', 'yes'],
  dataFile: ['none', 'own', 'raw'],
  encryption: ['none', 'luks'],
  size: ['odd', 'whole'],
} as const satisfies Choices

export type ImageKind = { readonly [Name in keyof typeof choices]: (typeof choices)[Name][number] }

/** Pairs that the format, or the stock tool, does not know. */
const impossible: readonly ((kind: Partial<ImageKind>) => boolean)[] = [
  ({ version, refcountBits = 16 }) => version === 2 && refcountBits !== 16,
  ({ version, compressionType }) => version === 2 && compressionType === 'zstd',
  ({ version, lazyRefcounts }) => version === 2 && lazyRefcounts === 'on',
  ({ version, extendedL2 }) => version === 2 && extendedL2 === 'on',
  ({ clusterSize = 65536, extendedL2 }) => clusterSize < 16384 && extendedL2 === 'on',
  // Only subclusters tell apart what is allocated and what is not yet written.
  ({ backing = 'none', preallocation = 'off', extendedL2, version, clusterSize = 65536 }) =>
    backing !== 'none' &&
    preallocation !== 'off' &&
    (extendedL2 === 'off' || version === 2 || clusterSize < 16384),
  ({ version, dataFile = 'none' }) => version === 2 && dataFile !== 'none',
  ({ compressed, dataFile = 'none' }) => compressed === 'yes' && dataFile !== 'none',
  ({ snapshot, dataFile = 'none' }) => snapshot === 'yes' && dataFile !== 'none',
  // Nothing shows through what can be read as the disk itself.
  ({ backing = 'none', dataFile }) => backing !== 'none' && dataFile === 'raw',
  ({ encryption, compressed }) => encryption === 'luks' && compressed === 'yes',
  // What the stock tool reads there is noise; a raw data file is preallocated.
  ({ encryption, preallocation = 'off' }) => encryption === 'luks' && preallocation !== 'off',
  ({ encryption, dataFile }) => encryption === 'luks' && dataFile === 'raw',
  // A count of one bit has no room for a second reference.
  ({ refcountBits, snapshot }) => refcountBits === 1 && snapshot === 'yes',
  // Nor one of two bits, where three compressed clusters share a host cluster.
  ({ refcountBits, snapshot, compressed }) =>
    refcountBits === 2 && snapshot === 'yes' && compressed === 'yes',
]

export const mayBe = (partial: Row): boolean => !impossible.some((isImpossible) => isImpossible(partial))

export function describeKind(kind: ImageKind): string {
  return Object.entries(kind)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ')
}

/** Guest bytes: some clusters, and of small ones not many. */
export function sizeOf({ clusterSize, size }: ImageKind): number {
  const clusters = Math.max(3, Math.min(37, Math.ceil((2 * 1024 * 1024) / clusterSize)))
  return clusters * clusterSize - (size === 'odd' ? Math.min(clusterSize / 2, 512 * 5) & ~511 : 0)
}

export function backingOf(kind: ImageKind): { format: 'raw' | 'qcow2'; size: number } | undefined {
  const size = sizeOf(kind)
  const shorter = Math.ceil((size * 0.6) / 512) * 512
  switch (kind.backing) {
    case 'none':
      return undefined
    case 'raw shorter':
      return { format: 'raw', size: shorter }
    case 'qcow2 shorter':
      return { format: 'qcow2', size: shorter }
    case 'qcow2 longer':
      return { format: 'qcow2', size: size + 512 * 77 }
  }
}

/** How each of the two makes, and opens, such an image. */
export type Ways = {
  readonly ours: Omit<CreateOptions, 'overwrite'>
  readonly open: OpenOptions
  /** Of `-o`. */
  readonly theirs: readonly string[]
  /** Of qemu-img and qemu-io, and what they call the image. */
  readonly secret: readonly string[]
  readonly named: (path: string) => readonly string[]
}

const passphrase = 'conforming'

/** @param folder  of the image, and of its data file */
export function waysOf(kind: ImageKind, folder: string, backingFile = ''): Ways {
  const backing = backingOf(kind)
  // With its folder: the stock tool takes a relative name as seen from where it runs.
  const dataFile = join(folder, 'disk.data')
  const compat = kind.version === 2 ? '0.10' : '1.1'
  const { clusterSize, refcountBits, compressionType, preallocation } = kind
  const isEncrypted = kind.encryption === 'luks'
  const theirs = [
    `compat=${compat}`,
    `cluster_size=${clusterSize}`,
    `refcount_bits=${refcountBits}`,
    `preallocation=${preallocation}`,
    ...(kind.version === 3
      ? [
          `compression_type=${compressionType}`,
          `lazy_refcounts=${kind.lazyRefcounts}`,
          `extended_l2=${kind.extendedL2}`,
        ]
      : []),
    ...(kind.dataFile === 'none' ? [] : [`data_file=${dataFile}`]),
    ...(kind.dataFile === 'raw' ? ['data_file_raw=on'] : []),
    ...(isEncrypted ? ['encrypt.format=luks', 'encrypt.key-secret=key', 'encrypt.iter-time=10'] : []),
    ...(backing === undefined ? [] : [`backing_file=${backingFile}`, `backing_fmt=${backing.format}`]),
  ]
  return {
    theirs,
    secret: isEncrypted ? ['--object', `secret,id=key,data=${passphrase}`] : [],
    named: (path) =>
      isEncrypted
        ? ['--image-opts', `driver=qcow2,file.filename=${path},encrypt.key-secret=key`]
        : ['-f', 'qcow2', path],
    open: {
      ...(kind.dataFile === 'none' ? {} : { dataFile: 'same-directory' }),
      ...(isEncrypted ? { encryption: { passphrase } } : {}),
    },
    ours: {
      size: sizeOf(kind),
      compat,
      clusterSize,
      refcountBits,
      preallocation,
      ...(kind.version === 3
        ? {
            compressionType,
            lazyRefcounts: kind.lazyRefcounts === 'on',
            extendedL2: kind.extendedL2 === 'on',
          }
        : {}),
      ...(kind.dataFile === 'none' ? {} : { dataFile, dataFileRaw: kind.dataFile === 'raw' }),
      ...(isEncrypted ? { encrypt: { format: 'luks', passphrase, iterTime: 10 } } : {}),
      ...(backing === undefined ? {} : { backingFile, backingFormat: backing.format }),
    },
  }
}
