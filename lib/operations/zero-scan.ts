/** Compared with in pieces of this many bytes: a native comparison runs at memory speed, once it has begun. */
const comparedBytes = 64 * 1024

const zeros = Buffer.alloc(comparedBytes)

/** Whether all bytes from `start` to before `end` are zero. */
export function isZero(bytes: Uint8Array, start = 0, end = bytes.length): boolean {
  // Most data shows itself in its first or last byte, without the cost of a native call or of a view.
  if (start >= end) return true
  if (bytes[start] !== 0 || bytes[end - 1] !== 0) return false
  for (let at = start; at < end; at += comparedBytes) {
    const to = Math.min(at + comparedBytes, end)
    if (zeros.compare(bytes, at, to, 0, to - at) !== 0) return false
  }
  return true
}

export type Run = { readonly start: number; readonly end: number; readonly zero: boolean }

/**
 * Split bytes into runs of zeros and of others.
 * @param unit  bytes: runs begin at multiples of it, the last may end anywhere. Data with zeros among it stays data
 */
export function zeroRuns(bytes: Uint8Array, unit: number): Run[] {
  const runs: Run[] = []
  let start = 0
  let zero: boolean | undefined
  for (let at = 0; at < bytes.length; at += unit) {
    const here = isZero(bytes, at, Math.min(at + unit, bytes.length))
    if (zero !== undefined && zero !== here) {
      runs.push({ start, end: at, zero })
      start = at
    }
    zero = here
  }
  if (zero !== undefined) runs.push({ start, end: bytes.length, zero })
  return runs
}

/** The runs of whole units in which two equally long pieces differ. */
export function differentRuns(a: Uint8Array, b: Uint8Array, unit: number): { start: number; end: number }[] {
  const runs: { start: number; end: number }[] = []
  for (let start = 0; start < a.length; start += unit) {
    const end = Math.min(start + unit, a.length)
    if (Buffer.compare(a.subarray(start, end), b.subarray(start, end)) === 0) continue
    const last = runs.at(-1)
    if (last?.end === start) last.end = end
    else runs.push({ start, end })
  }
  return runs
}
