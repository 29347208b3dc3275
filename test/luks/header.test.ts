import test from 'ava'
import { encodeLuksHeader, parseLuksHeader } from '../../lib/luks/header.js'
import { newVolumeHeader, volumeHeaderBytes, volumeSpec } from '../../lib/luks/new-volume.js'
import { headerBytes, headerFields, slotOffset } from '../../lib/luks/spec.js'

const spec = volumeSpec({ cipherAlg: 'aes-128', iterTime: 1 })
const place = { path: 'disk', offset: 65536, areaBytes: volumeHeaderBytes(spec) }
const made = newVolumeHeader(spec, Buffer.from('secret'))

test('a header is read as it was written, to the byte', async (t) => {
  const bytes = (await made).subarray(0, headerBytes)
  const header = parseLuksHeader(bytes, place)
  t.deepEqual(encodeLuksHeader(header), Uint8Array.from(bytes))
  t.is(Buffer.from(bytes.subarray(0, 8)).toString('hex'), '4c554b53babe0001')
  t.is(header.slots.filter(({ active }) => active).length, 1)
  t.regex(header.uuid, /^[0-9a-f-]{36}$/)
})

test('what no header says is refused, and where is told', async (t) => {
  const { offsets } = headerFields
  const slot = slotOffset(3)
  const cases: [name: string, at: number, hex: string, code: string, message: RegExp][] = [
    ['magic', 0, '00', 'ERR_CORRUPT', /not in LUKS format/],
    ['version 2', offsets.version, '0002', 'ERR_UNSUPPORTED_FEATURE', /LUKS version 2/],
    ['cipher', offsets.cipherName, '78', 'ERR_UNSUPPORTED_FEATURE', /cipher 'xes'/],
    ['control characters', offsets.cipherName, '1b5b', 'ERR_CORRUPT', /cipherName is no text/],
    ['no end', offsets.hashName, '61'.repeat(32), 'ERR_CORRUPT', /hashName is no text/],
    ['mode', offsets.cipherMode, '787878', 'ERR_UNSUPPORTED_FEATURE', /cipher mode 'xxx-plain64'/],
    ['hash', offsets.hashName, '78', 'ERR_UNSUPPORTED_FEATURE', /hash 'xha256'/],
    ['long key', offsets.keyBytes, 'ffffffff', 'ERR_CORRUPT', /A key of 4294967295 bytes/],
    ['no key', offsets.keyBytes, '00000000', 'ERR_CORRUPT', /A key of 0 bytes/],
    ['odd key', offsets.keyBytes, '00000021', 'ERR_UNSUPPORTED_FEATURE', /with a key of 33 bytes/],
    ['payload', offsets.payloadSector, 'ffffffff', 'ERR_CORRUPT', /behind the header's area/],
    ['small payload', offsets.payloadSector, '00000000', 'ERR_CORRUPT', /overlaps the header or the payload/],
    ['digest', offsets.digestIterations, '00000000', 'ERR_CORRUPT', /0 iterations/],
    ['state', slot, '00000001', 'ERR_CORRUPT', /slot 3 is neither active nor inactive/],
    ['iterations', slotOffset(0) + 4, '00000000', 'ERR_CORRUPT', /slot 0 has 0 iterations/],
    ['in the header', slot + 40, '00000001', 'ERR_CORRUPT', /slot 3 overlaps/],
    ['in another', slot + 40, '00000009', 'ERR_CORRUPT', /slots 0 and 3 overlaps/],
    ['outside', slot + 40, 'ffffffff', 'ERR_CORRUPT', /slot 3 overlaps/],
    ['stripes', slot + 44, 'ffffffff', 'ERR_CORRUPT', /4294967295 stripes/],
  ]
  for (const [name, at, hex, code, message] of cases) {
    const bytes = Uint8Array.from((await made).subarray(0, headerBytes))
    bytes.set(Buffer.from(hex, 'hex'), at)
    t.throws(() => parseLuksHeader(bytes, place), { code, message }, name)
  }
})
