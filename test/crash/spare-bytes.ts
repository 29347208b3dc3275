/** Buffers of explorations that are over: thousands follow each other, and new ones of a megabyte each keep the collector busy. */
const spare: Uint8Array<ArrayBuffer>[] = []
const mostSpare = 8

/** Bytes that hold anything. */
export function takeBytes(length: number): Uint8Array<ArrayBuffer> {
  const index = spare.findIndex((one) => one.length === length)
  return (index < 0 ? undefined : spare.splice(index, 1)[0]) ?? new Uint8Array(length)
}

/** Nobody looks at these any more. */
export function giveBytes(...all: Uint8Array<ArrayBuffer>[]): void {
  spare.unshift(...all)
  spare.length = Math.min(spare.length, mostSpare)
}
