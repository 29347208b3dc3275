import { headerFields, slotFields, slotActive, slotInactive } from '../luks/spec.js'
import type { Field, Layout } from '../base/layout.js'
import type { FieldWords } from './inspect-structure.js'
import {
  type bitmapEntry,
  bitmapFlags,
  type bitmapsExtension,
  type encryptionExtension,
  encryptionNames,
  extensionTypes,
  featureGroups,
  featureNames,
  type headerV2,
  type headerV3,
  type snapshotEntry,
} from './spec.js'

/** What the fields are called in the specification; where it describes them without a name, in the way of those that have one. */
type WordsOf<L> = L extends Layout<infer F extends Field> ? FieldWords<F> : never

/** The names of the bits that are set; those that nobody knows by their number. */
function bitNames(group: number): (value: number | bigint) => string | undefined {
  return (value) => {
    const mask = BigInt(value)
    const names: string[] = []
    for (let bit = 0; bit < 64; bit++) {
      if ((mask & (1n << BigInt(bit))) === 0n) continue
      const known = featureNames.find(([ofGroup, ofBit]) => ofGroup === group && ofBit === bit)
      names.push(known?.[2] ?? `unknown bit ${bit}`)
    }
    return names.length === 0 ? undefined : names.join(', ')
  }
}

const powerOfTwo =
  (unit: string) =>
  (value: number | bigint): string | undefined =>
    value < 53 ? `${2 ** Number(value)} ${unit}` : undefined

export const headerV2Words: WordsOf<typeof headerV2> = {
  names: {
    magic: 'magic',
    version: 'version',
    backingFileOffset: 'backing_file_offset',
    backingFileSize: 'backing_file_size',
    clusterBits: 'cluster_bits',
    size: 'size',
    cryptMethod: 'crypt_method',
    l1Entries: 'l1_size',
    l1Offset: 'l1_table_offset',
    refcountTableOffset: 'refcount_table_offset',
    refcountTableClusters: 'refcount_table_clusters',
    snapshotCount: 'nb_snapshots',
    snapshotsOffset: 'snapshots_offset',
  },
  meanings: {
    clusterBits: powerOfTwo('bytes'),
    cryptMethod: (value) => encryptionNames[Number(value)],
  },
}

export const headerV3Words: WordsOf<typeof headerV3> = {
  names: {
    incompatibleFeatures: 'incompatible_features',
    compatibleFeatures: 'compatible_features',
    autoclearFeatures: 'autoclear_features',
    refcountOrder: 'refcount_order',
    headerLength: 'header_length',
  },
  meanings: {
    incompatibleFeatures: bitNames(featureGroups.incompatible),
    compatibleFeatures: bitNames(featureGroups.compatible),
    autoclearFeatures: bitNames(featureGroups.autoclear),
    refcountOrder: powerOfTwo('bits'),
  },
}

/** By their types. */
export const extensionNames: Readonly<Record<number, string>> = {
  [extensionTypes.end]: 'end of the header extension area',
  [extensionTypes.backingFormat]: 'backing file format name',
  [extensionTypes.featureNames]: 'feature name table',
  [extensionTypes.bitmaps]: 'bitmaps extension',
  [extensionTypes.encryptionHeader]: 'full disk encryption header pointer',
  [extensionTypes.dataFileName]: 'external data file name',
}

export const bitmapsExtensionWords: WordsOf<typeof bitmapsExtension> = {
  names: {
    count: 'nb_bitmaps',
    reserved: 'reserved',
    directoryBytes: 'bitmap_directory_size',
    directoryOffset: 'bitmap_directory_offset',
  },
}

export const encryptionExtensionWords: WordsOf<typeof encryptionExtension> = {
  names: { offset: 'offset', length: 'length' },
}

export const snapshotWords: WordsOf<typeof snapshotEntry> = {
  names: {
    l1Offset: 'l1_table_offset',
    l1Entries: 'l1_size',
    idBytes: 'id_str_size',
    nameBytes: 'name_size',
    seconds: 'date_sec',
    nanoseconds: 'date_nsec',
    vmClock: 'vm_clock_nsec',
    vmStateBytes: 'vm_state_size',
    extraBytes: 'extra_data_size',
  },
  meanings: { seconds: (value) => new Date(Number(value) * 1000).toISOString() },
}

/** The extra data of a snapshot, 64 bits each, in the order of the file. */
export const snapshotExtraNames = ['vm_state_size (64 bits)', 'disk_size', 'icount'] as const

export const bitmapWords: WordsOf<typeof bitmapEntry> = {
  names: {
    tableOffset: 'bitmap_table_offset',
    tableEntries: 'bitmap_table_size',
    flags: 'flags',
    type: 'type',
    granularityBits: 'granularity_bits',
    nameBytes: 'name_size',
    extraBytes: 'extra_data_size',
  },
  meanings: {
    flags: (value) => {
      const { inUse, auto, extraCompatible } = bitmapFlags
      const names = [
        [inUse, 'in_use'],
        [auto, 'auto'],
        [extraCompatible, 'extra_data_compatible'],
      ] as const
      const set = names.filter(([bit]) => (Number(value) & bit) !== 0)
      return set.length === 0 ? undefined : set.map(([, name]) => name).join(', ')
    },
    type: (value) => (value === 1 ? 'dirty tracking' : undefined),
    granularityBits: powerOfTwo('bytes'),
  },
}

export const luksWords: WordsOf<typeof headerFields> = {
  names: {
    magic: 'magic',
    version: 'version',
    cipherName: 'cipher-name',
    cipherMode: 'cipher-mode',
    hashName: 'hash-spec',
    payloadSector: 'payload-offset',
    keyBytes: 'key-bytes',
    digest: 'mk-digest',
    digestSalt: 'mk-digest-salt',
    digestIterations: 'mk-digest-iterations',
    uuid: 'uuid',
  },
  texts: ['cipherName', 'cipherMode', 'hashName', 'uuid'],
}

export const keySlotWords: WordsOf<typeof slotFields> = {
  names: {
    state: 'active',
    iterations: 'iterations',
    salt: 'salt',
    materialSector: 'key-material-offset',
    stripes: 'stripes',
  },
  meanings: {
    state: (value) => (value === slotActive ? 'active' : value === slotInactive ? 'inactive' : undefined),
  },
}
