/** The same bytes as words of 32 bits, little-endian; copied where they do not begin at one. */
export function wordsOf(bytes: Uint8Array): Uint32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : Uint8Array.from(bytes)
  return new Uint32Array(aligned.buffer, aligned.byteOffset, aligned.byteLength >>> 2)
}

/** Two masks of one length, word by word, into the first. */
export function xorInto(into: Uint32Array, mask: Uint32Array): void {
  for (let index = 0; index < into.length; index++) {
    into[index] = (into[index] as number) ^ (mask[index] as number)
  }
}
