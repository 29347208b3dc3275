import { assert } from './assert.js'
import { corrupt } from './errors.js'

/**
 * The kinds of big-endian fields. `u64` is a number, exact to 2^53; `mask64` is a bigint, for feature masks; a plain
 * number is that many raw bytes.
 */
export type FieldKind = 'u8' | 'u16' | 'u32' | 'u64' | 'mask64' | number
export type Field = readonly [name: string, kind: FieldKind]

type ValueOf<K> = K extends 'mask64' ? bigint : K extends number ? Uint8Array : number
type Named<F extends Field, N> = Extract<F, readonly [N, FieldKind]>
export type ValuesOf<F extends Field> = { [N in F[0]]: ValueOf<Named<F, N>[1]> }

/** An on-disk structure: everything about it follows from the one list of its fields. */
export type Layout<F extends Field> = {
  readonly sizeBytes: number
  /** Byte offset of each field within the structure. */
  readonly offsets: { readonly [N in F[0]]: number }
  /** Bytes of each field, in the order of the file. */
  readonly widths: { readonly [N in F[0]]: number }
  /**
   * @param bytes  holds the structure from `at` on
   * @param fileOffset  where the structure begins in its file, for messages
   * @throws ERR_CORRUPT  a `u64` field is not below 2^53
   */
  decode(bytes: Uint8Array, at: number, fileOffset: number): ValuesOf<F>
  encode(values: ValuesOf<F>): Uint8Array
  /** Overwrite just these fields of the structure that begins at `at`. */
  patch(bytes: Uint8Array, at: number, values: Partial<ValuesOf<F>>): void
}

const two32 = 2 ** 32
/** Upper half of 2^53: a 64-bit value whose upper half is below this is exact in a number. */
const exactHighHalf = 2 ** 21

/**
 * Declare an on-disk structure.
 * @param structure  its name in the words of the specification, for messages
 */
export function layout<const F extends Field>(structure: string, fields: readonly F[]): Layout<F> {
  const offsets = {} as { [N in F[0]]: number }
  const widths = {} as { [N in F[0]]: number }
  let sizeBytes = 0
  for (const [name, kind] of fields) {
    offsets[name as F[0]] = sizeBytes
    widths[name as F[0]] = widthOf(kind)
    sizeBytes += widthOf(kind)
  }

  const patch = (bytes: Uint8Array, at: number, values: Partial<ValuesOf<F>>): void => {
    const view = viewOf(bytes)
    for (const [name, kind] of fields) {
      const value = values[name as F[0]]
      if (value !== undefined) storeField(bytes, view, at + offsets[name as F[0]], kind, value)
    }
  }

  return {
    sizeBytes,
    offsets,
    widths,
    patch,
    decode(bytes, at, fileOffset) {
      assert(
        at + sizeBytes <= bytes.length,
        `${structure} of ${sizeBytes} bytes within ${bytes.length} at ${at}`,
      )
      const view = viewOf(bytes)
      const values: Record<string, unknown> = {}
      for (const [name, kind] of fields) {
        const within = offsets[name as F[0]]
        values[name] = loadField(bytes, view, at + within, kind, () =>
          corrupt(structure, fileOffset + within, `${name} is not below 2^53`),
        )
      }
      return values as ValuesOf<F>
    },
    encode(values) {
      const bytes = new Uint8Array(sizeBytes)
      patch(bytes, 0, values)
      return bytes
    },
  }
}

function widthOf(kind: FieldKind): number {
  switch (kind) {
    case 'u8':
      return 1
    case 'u16':
      return 2
    case 'u32':
      return 4
    case 'u64':
    case 'mask64':
      return 8
    default:
      return kind
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function loadField(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  kind: FieldKind,
  tooLarge: () => Error,
): number | bigint | Uint8Array {
  switch (kind) {
    case 'u8':
      return view.getUint8(at)
    case 'u16':
      return view.getUint16(at)
    case 'u32':
      return view.getUint32(at)
    case 'u64': {
      const high = view.getUint32(at)
      if (high >= exactHighHalf) throw tooLarge()
      return high * two32 + view.getUint32(at + 4)
    }
    case 'mask64':
      return view.getBigUint64(at)
    default:
      return Uint8Array.from(bytes.subarray(at, at + kind))
  }
}

function storeField(bytes: Uint8Array, view: DataView, at: number, kind: FieldKind, value: unknown): void {
  if (typeof kind === 'number') {
    assert(value instanceof Uint8Array && value.length === kind, `a field of ${kind} raw bytes`)
    bytes.set(value, at)
    return
  }
  if (kind === 'mask64') {
    assert(typeof value === 'bigint' && BigInt.asUintN(64, value) === value, 'a mask of 64 bits')
    view.setBigUint64(at, value)
    return
  }
  const limit = kind === 'u64' ? 2 ** 53 : 2 ** (widthOf(kind) * 8)
  assert(
    typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < limit,
    `a value for ${kind}`,
  )
  if (kind === 'u8') view.setUint8(at, value)
  else if (kind === 'u16') view.setUint16(at, value)
  else if (kind === 'u32') view.setUint32(at, value)
  else {
    view.setUint32(at, Math.floor(value / two32))
    view.setUint32(at + 4, value % two32)
  }
}
