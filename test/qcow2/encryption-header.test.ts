import test from 'ava'
import { newVolumeHeader, volumeHeaderBytes, volumeSpec } from '../../lib/luks/new-volume.js'
import { checkQcow2 } from '../../lib/qcow2/check.js'
import { createQcow2 } from '../../lib/qcow2/create.js'
import { encryptionArea, readEncryptionHeader } from '../../lib/qcow2/encryption-header.js'
import { readHeader } from '../../lib/qcow2/open-metadata.js'
import { MemoryBackend } from '../../lib/queue/memory-backend.js'

const spec = volumeSpec({ cipherAlg: 'aes-128', cipherMode: 'cbc', iterTime: 1 })

for (const clusterSize of [512, 65536]) {
  test(`the area of a LUKS header follows the L1, is counted, and read, in clusters of ${clusterSize}`, async (t) => {
    const memory = new MemoryBackend()
    const luksHeader = await newVolumeHeader(spec, Buffer.from('secret'))
    const size = 1024 ** 2
    await createQcow2(memory, {
      version: 3,
      size,
      clusterSize,
      refcountBits: 16,
      lazyRefcounts: false,
      luksHeader,
    })
    const { header } = await readHeader(memory)
    t.is(header.cryptMethod, 2)
    const area = encryptionArea(header)
    t.is(area?.length, volumeHeaderBytes(spec))
    t.is(area?.offset, header.l1Offset + Math.ceil((header.l1Entries * 8) / clusterSize) * clusterSize)
    t.is((await readEncryptionHeader(memory, header)).header.cipher.cipherAlg, 'aes-128')
    const { corruptions, leaks } = await checkQcow2(memory, {})
    t.deepEqual([corruptions, leaks], [0, 0])
    await memory.truncate(area?.offset ?? 0)
    await t.throwsAsync(readEncryptionHeader(memory, header), { code: 'ERR_CORRUPT' })
  })
}
