import { assert } from '../base/assert.js'

/** What stands at the beginning of some bytes, by the Zstandard format (RFC 8878, section 3.1). */
export type ZstdFrame =
  | {
      readonly type: 'data'
      /** Bytes of the frame, its header and checksum included. */
      readonly bytes: number
      /** Bytes that it unpacks to, where it says so. */
      readonly contentSize: number | undefined
      /** Bytes: how far its matches reach back. */
      readonly windowSize: number
      /** Whether contentSize is the window too, and there is no byte for the window. */
      readonly singleSegment: boolean
    }
  /** Holds nothing for the decoder. */
  | { readonly type: 'skippable'; readonly bytes: number }
  | { readonly type: 'damaged'; readonly reason: string }

const dataMagic = 0xfd2fb528
const skippableMagic = 0x184d2a50
const skippableMagics = 16

/** Of a frame without a single segment: where the byte that says how large the window is stands. */
const windowDescriptorAt = 5
const smallestWindowBits = 10
/** Larger ones QEMU's decoder refuses too; a decoder keeps that many bytes. */
const largestWindow = 2 ** 27

/** Bytes of the fields that a frame's header may have, by two bits of its descriptor. */
const dictionaryIdBytes = [0, 1, 2, 4] as const
const contentSizeBytes = [0, 2, 4, 8] as const
const blockHeaderBytes = 3
const blockTypes = { runLength: 1, reserved: 3 } as const
const checksumBytes = 4

/**
 * Find the end of the first frame, without unpacking it. Decoders of whole buffers take what follows a frame for the next one, and fail: in a
 * qcow2 image that is the beginning of the next cluster's.
 */
export function measureFrame(bytes: Uint8Array): ZstdFrame {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  try {
    const magic = view.getUint32(0, true)
    if (magic >= skippableMagic && magic < skippableMagic + skippableMagics) {
      const skippable = 8 + view.getUint32(4, true)
      return skippable > bytes.length ? unfinished : { type: 'skippable', bytes: skippable }
    }
    if (magic !== dataMagic) return damaged('no zstd frame begins there')
    return measureData(view)
  } catch (error) {
    // A field lies beyond the bytes.
    if (error instanceof RangeError) return unfinished
    throw error
  }
}

function measureData(view: DataView): ZstdFrame {
  const descriptor = view.getUint8(4)
  if ((descriptor & 0x08) !== 0) return damaged('a reserved bit of the frame header is set')
  const singleSegment = (descriptor & 0x20) !== 0
  const hasChecksum = (descriptor & 0x04) !== 0
  let at = singleSegment ? windowDescriptorAt : windowDescriptorAt + 1
  const idBytes = dictionaryIdBytes[(descriptor & 3) as 0 | 1 | 2 | 3]
  for (let index = 0; index < idBytes; index++) {
    if (view.getUint8(at + index) !== 0) return damaged('the frame needs a dictionary')
  }
  at += idBytes
  const sizeBytes = contentSizeBytes[(descriptor >> 6) as 0 | 1 | 2 | 3] || (singleSegment ? 1 : 0)
  const contentSize = sizeBytes === 0 ? undefined : loadContentSize(view, at, sizeBytes)
  const windowSize = singleSegment ? (contentSize ?? 0) : loadWindow(view.getUint8(windowDescriptorAt))
  if (windowSize > largestWindow) return damaged(`the frame's window has ${windowSize} bytes`)
  const end = findEnd(view, at + sizeBytes)
  if (end === undefined) return damaged('a block of the frame is of a reserved type')
  const bytes = end + (hasChecksum ? checksumBytes : 0)
  return bytes > view.byteLength
    ? unfinished
    : { type: 'data', bytes, contentSize, windowSize, singleSegment }
}

/** @returns where the blocks end; undefined for one that no decoder knows. @throws RangeError  the bytes end before */
function findEnd(view: DataView, start: number): number | undefined {
  for (let at = start; ;) {
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16)
    const type = (header >> 1) & 3
    if (type === blockTypes.reserved) return undefined
    at += blockHeaderBytes + (type === blockTypes.runLength ? 1 : header >> 3)
    if ((header & 1) !== 0) return at
  }
}

function loadContentSize(view: DataView, at: number, bytes: 1 | 2 | 4 | 8): number {
  switch (bytes) {
    case 1:
      return view.getUint8(at)
    case 2:
      return view.getUint16(at, true) + 256
    case 4:
      return view.getUint32(at, true)
    case 8:
      return view.getUint32(at, true) + 2 ** 32 * view.getUint32(at + 4, true)
  }
}

function loadWindow(descriptor: number): number {
  const base = 2 ** (smallestWindowBits + (descriptor >> 3))
  return base + (base / 8) * (descriptor & 7)
}

/**
 * The frame as a decoder is to get it. Decoders make room for the whole window, but no match reaches further back than what has come out before,
 * so that a window as large as all that may come out is enough. Else one small frame would take 128 MiB.
 * @param bytes    the frame and nothing else
 * @param mostOut  bytes that may come out, a power of two
 */
export function limitWindow(bytes: Uint8Array, frame: ZstdFrame, mostOut: number): Uint8Array {
  assert(frame.type === 'data', 'only frames of data have a window')
  const window = Math.max(mostOut, 2 ** smallestWindowBits)
  if (frame.singleSegment || frame.windowSize <= window) return bytes
  const limited = Uint8Array.from(bytes)
  limited[windowDescriptorAt] = (Math.log2(window) - smallestWindowBits) << 3
  return limited
}

const unfinished: ZstdFrame = { type: 'damaged', reason: 'it ends within a frame' }

function damaged(reason: string): ZstdFrame {
  return { type: 'damaged', reason }
}
