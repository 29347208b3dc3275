import { assert } from '../base/assert.js'
import { layout } from '../base/layout.js'

/** Constants and fixed structures of the format. qcow2 spec; section names are given at each. */

/** 'QFI\xfb'. */
export const magic = 0x514649fb

/** The fields that both versions have. qcow2 spec, "Header". */
export const headerV2 = layout('header', [
  ['magic', 'u32'],
  ['version', 'u32'],
  ['backingFileOffset', 'u64'],
  ['backingFileSize', 'u32'],
  ['clusterBits', 'u32'],
  ['size', 'mask64'],
  ['cryptMethod', 'u32'],
  ['l1Entries', 'u32'],
  ['l1Offset', 'u64'],
  ['refcountTableOffset', 'u64'],
  ['refcountTableClusters', 'u32'],
  ['snapshotCount', 'u32'],
  ['snapshotsOffset', 'u64'],
])
assert(headerV2.sizeBytes === 72, 'version 2 header is 72 bytes')

/** What version 3 adds, from byte 72 on. qcow2 spec, "Header". */
export const headerV3 = layout('header', [
  ['incompatibleFeatures', 'mask64'],
  ['compatibleFeatures', 'mask64'],
  ['autoclearFeatures', 'mask64'],
  ['refcountOrder', 'u32'],
  ['headerLength', 'u32'],
])
assert(headerV2.sizeBytes + headerV3.sizeBytes === 104, 'version 3 header is at least 104 bytes')

/** Byte offset of the compression type; present if the header is longer than this. qcow2 spec, "Header". */
export const compressionTypeAt = 104

/** The header length that we write; QEMU's too. */
export const headerLengthV3 = 112

/** One per header extension. qcow2 spec, "Header extensions". */
export const extensionHeader = layout('header extension', [
  ['type', 'u32'],
  ['length', 'u32'],
])

export const extensionTypes = {
  end: 0,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
  encryptionHeader: 0x0537be77,
  dataFileName: 0x44415441,
} as const

/** qcow2 spec, "Feature name table". */
export const featureName = layout('feature name table', [
  ['group', 'u8'],
  ['bit', 'u8'],
  ['name', 46],
])

/** qcow2 spec, "Bitmaps extension". */
export const bitmapsExtension = layout('bitmaps extension', [
  ['count', 'u32'],
  ['reserved', 'u32'],
  ['directoryBytes', 'u64'],
  ['directoryOffset', 'u64'],
])

/** qcow2 spec, "Full disk encryption header pointer". */
export const encryptionExtension = layout('full disk encryption header pointer', [
  ['offset', 'u64'],
  ['length', 'u64'],
])

/** qcow2 spec, "Snapshots". Followed by extra data, id and name; each entry is padded to 8 bytes. */
export const snapshotEntry = layout('snapshot table entry', [
  ['l1Offset', 'mask64'],
  ['l1Entries', 'u32'],
  ['idBytes', 'u16'],
  ['nameBytes', 'u16'],
  ['seconds', 'u32'],
  ['nanoseconds', 'u32'],
  ['vmClock', 'mask64'],
  ['vmStateBytes', 'u32'],
  ['extraBytes', 'u32'],
])
assert(snapshotEntry.sizeBytes === 40, 'a snapshot table entry begins with 40 fixed bytes')

/** qcow2 spec, "Bitmap directory". Followed by extra data and name; each entry is padded to 8 bytes. */
export const bitmapEntry = layout('bitmap directory entry', [
  ['tableOffset', 'u64'],
  ['tableEntries', 'u32'],
  ['flags', 'u32'],
  ['type', 'u8'],
  ['granularityBits', 'u8'],
  ['nameBytes', 'u16'],
  ['extraBytes', 'u32'],
])

/** Flags of a bitmap directory entry. qcow2 spec, "Bitmap directory". */
export const bitmapFlags = {
  /** Was not stored by the last writer: its bits mean nothing. */
  inUse: 1,
  /** Is to follow every change of the disk. */
  auto: 2,
  /** Its extra data, if there is any, need not be understood. */
  extraCompatible: 4,
} as const

export const incompatible = {
  dirty: 1n << 0n,
  corrupt: 1n << 1n,
  dataFile: 1n << 2n,
  compressionType: 1n << 3n,
  extendedL2: 1n << 4n,
} as const

export const compatible = { lazyRefcounts: 1n << 0n } as const

export const autoclear = { bitmaps: 1n << 0n, dataFileRaw: 1n << 1n } as const

/** The incompatible bits whose meaning we know; an image with another one is refused. */
export const knownIncompatible =
  incompatible.dirty |
  incompatible.corrupt |
  incompatible.dataFile |
  incompatible.compressionType |
  incompatible.extendedL2

/** The groups of the feature name table. */
export const featureGroups = { incompatible: 0, compatible: 1, autoclear: 2 } as const

/** The table that QEMU writes, in its order. */
export const featureNames: readonly (readonly [group: number, bit: number, name: string])[] = [
  [featureGroups.incompatible, 0, 'dirty bit'],
  [featureGroups.incompatible, 1, 'corrupt bit'],
  [featureGroups.incompatible, 2, 'external data file'],
  [featureGroups.incompatible, 3, 'compression type'],
  [featureGroups.incompatible, 4, 'extended L2 entries'],
  [featureGroups.compatible, 0, 'lazy refcounts'],
  [featureGroups.autoclear, 0, 'bitmaps'],
  [featureGroups.autoclear, 1, 'raw external data'],
]

/** By the number in the header's crypt_method. */
export const encryptionNames = ['none', 'AES', 'LUKS'] as const

/** Enough for 2 PiB of file in 64 KiB clusters. */
export const maxRefcountTableBytes = 8 * 1024 * 1024

/**
 * Limits. They are QEMU's, so that what one program writes the other opens; each also bounds the memory that a
 * stranger's image can make us take. Checked before anything is allocated.
 */
export const limits = {
  /** Below, a cluster is no sector; above, QEMU opens none. */
  clusterBits: { least: 9, most: 21 },
  refcountOrder: 6,
  /** Entries of the active L1: 32 MiB, which maps 2 EiB in 2 MiB clusters. */
  l1Entries: (32 * 1024 * 1024) / 8,
  refcountTableBytes: maxRefcountTableBytes,
  snapshots: 65536,
  /** The whole snapshot table. */
  snapshotTableBytes: 64 * 1024 * 1024,
  snapshotExtraBytes: 1024,
  /** PATH_MAX without room for more; the name must also fit the first cluster. */
  backingFileBytes: 1023,
  /** PATH_MAX. */
  dataFileBytes: 4096,
  /** Format names are short words. */
  backingFormatBytes: 15,
  bitmaps: 65535,
  bitmapDirectoryBytes: 65535 * 1024,
  bitmapTableEntries: 0x8000000,
  bitmapNameBytes: 1023,
  /** Guest bytes for one bit: 512 to 2 GiB. */
  bitmapGranularityBits: { least: 9, most: 31 },
  /** The bits of one bitmap. */
  bitmapBytes: 512 * 1024 * 1024,
  /** All bitmap tables of an image: ours, since they stay in memory. In clusters of 64 KiB enough for 256 GiB of bits. */
  bitmapTablesBytes: 32 * 1024 * 1024,
  /** Extended L2 has 32 subclusters, none smaller than a sector. */
  extendedL2ClusterBits: 14,
} as const
