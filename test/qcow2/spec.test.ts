import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import {
  compressionTypeAt,
  extensionTypes,
  featureNames,
  headerLengthV3,
  headerV2,
  headerV3,
  magic,
  snapshotEntry,
} from '../../lib/qcow2/spec.js'
import { qemuImg } from '../support/qemu.js'
import { makeFolder } from '../support/temp-folder.js'

test('the header of a file that qemu-img made reads as what it was asked for', async (t) => {
  const file = join(await makeFolder(t), 'a.qcow2')
  const options = 'cluster_size=32768,refcount_bits=8,lazy_refcounts=on,compression_type=zstd'
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', options, '-u', '-b', 'base', '-F', 'raw', file, '96M')
  const bytes = await readFile(file)
  const fixed = headerV2.decode(bytes, 0, 0)
  t.is(fixed.magic, magic)
  t.is(fixed.version, 3)
  t.is(fixed.clusterBits, 15)
  t.is(fixed.size, 96n * 1024n * 1024n)
  t.is(fixed.l1Entries, 1)
  t.is(fixed.l1Offset, 3 * 32768)
  t.is(fixed.refcountTableOffset, 32768)
  t.is(fixed.refcountTableClusters, 1)
  const { backingFileOffset, backingFileSize } = fixed
  t.is(bytes.toString('latin1', backingFileOffset, backingFileOffset + backingFileSize), 'base')
  t.deepEqual(headerV3.decode(bytes, headerV2.sizeBytes, 0), {
    incompatibleFeatures: 8n,
    compatibleFeatures: 1n,
    autoclearFeatures: 0n,
    refcountOrder: 3,
    headerLength: headerLengthV3,
  })
  t.is(bytes[compressionTypeAt], 1)
  t.is(bytes.readUInt32BE(headerLengthV3), extensionTypes.backingFormat)
  // 'raw', padded to 8 bytes, behind the extension's own 8
  t.is(bytes.readUInt32BE(headerLengthV3 + 16), extensionTypes.featureNames)
  t.is(bytes.readUInt32BE(headerLengthV3 + 20), featureNames.length * 48)
})

test('a snapshot that qemu-img took reads as one', async (t) => {
  const file = join(await makeFolder(t), 'a.qcow2')
  await qemuImg('create', '-q', '-f', 'qcow2', file, '1M')
  await qemuImg('snapshot', '-c', 'a name', file)
  const bytes = await readFile(file)
  const { snapshotCount, snapshotsOffset } = headerV2.decode(bytes, 0, 0)
  t.is(snapshotCount, 1)
  const entry = snapshotEntry.decode(bytes, snapshotsOffset, snapshotsOffset)
  t.is(entry.l1Entries, 1)
  t.is(entry.extraBytes, 24)
  const idAt = snapshotsOffset + snapshotEntry.sizeBytes + entry.extraBytes
  t.is(bytes.toString('latin1', idAt, idAt + entry.idBytes + entry.nameBytes), '1a name')
})
