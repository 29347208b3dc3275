// What a Mach-O file says of itself, as far as it decides whether macOS loads it.
import { createHash } from 'node:crypto'

const magic64 = 0xfeedfacf
const cpus = { 0x01000007: 'x64', 0x0100000c: 'arm64' }
const loadDylib = [0xc, 0x80000018, 0x8000001f]
const codeSignature = 0x1d
const versionMin = 0x24
const buildVersion = 0x32

/** @returns { arch, libraries, oldestMacos, signature } of a file for one processor; signature: see `lookAtSignature`, undefined without one */
export function readMachO(bytes) {
  if (bytes.readUInt32LE(0) !== magic64) throw new Error('no Mach-O file for one processor of 64 bits')
  const found = {
    arch: cpus[bytes.readUInt32LE(4)],
    libraries: [],
    oldestMacos: undefined,
    signature: undefined,
  }
  let at = 32
  for (let left = bytes.readUInt32LE(16); left > 0; left--) {
    const [command, length] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4)]
    if (loadDylib.includes(command)) {
      const name = bytes.subarray(at + bytes.readUInt32LE(at + 8), at + length).toString('latin1')
      found.libraries.push(name.slice(0, name.indexOf('\0')))
    }
    if (command === versionMin) found.oldestMacos = version(bytes.readUInt32LE(at + 8))
    if (command === buildVersion) found.oldestMacos = version(bytes.readUInt32LE(at + 12))
    if (command === codeSignature) found.signature = lookAtSignature(bytes, bytes.readUInt32LE(at + 8))
    at += length
  }
  return found
}

const version = (number) => `${number >>> 16}.${(number >>> 8) & 0xff}`

/** @returns { adHoc, valid }: whether the hashes of all pages are those of the file */
function lookAtSignature(file, offset) {
  // All of a signature is big-endian, whatever the processor.
  const blobs = file.readUInt32BE(offset + 8)
  for (let i = 0; i < blobs; i++) {
    const at = offset + file.readUInt32BE(offset + 16 + i * 8)
    const isCodeDirectory = file.readUInt32BE(at) === 0xfade0c02
    if (isCodeDirectory) return lookAtDirectory(file, at)
  }
  return { adHoc: false, valid: false }
}

function lookAtDirectory(file, at) {
  const flags = file.readUInt32BE(at + 12)
  const hashes = at + file.readUInt32BE(at + 16)
  const pages = file.readUInt32BE(at + 28)
  const end = file.readUInt32BE(at + 32)
  const [hashSize, hashType] = [file[at + 36], file[at + 37]]
  const pageSize = 2 ** file[at + 39]
  const isWhole = pages === Math.ceil(end / pageSize)
  const isSha256 = hashType === 2 && hashSize === 32
  const valid = Array.from({ length: pages }).every((_, page) => {
    const bytes = file.subarray(page * pageSize, Math.min((page + 1) * pageSize, end))
    const hash = file.subarray(hashes + page * hashSize, hashes + (page + 1) * hashSize)
    return createHash('sha256').update(bytes).digest().equals(hash)
  })
  return { adHoc: (flags & 2) !== 0, valid: isWhole && isSha256 && valid }
}
