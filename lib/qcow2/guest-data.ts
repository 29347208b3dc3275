/**
 * Where the bytes of a guest's plain clusters are: all that a guest reads or writes there goes through this, what is copied around a write and what
 * preallocation fills included. Compressed clusters and tables stand in the image's own file and do not. For an image that keeps all in one
 * file and as it is, this is that file's backend itself, at no cost.
 *
 * Each call gives both offsets of its first byte, in bytes, of any alignment: `host` in the file, `guest` in the disk. The range is one run in both.
 */
export interface GuestData {
  /** Bytes; no byte at or past this was ever submitted for writing, nor was there when the file was opened. */
  readonly length: number
  /** What was never written does not read as zeros: zeros must be written. */
  readonly encrypted?: boolean
  /** Fill `bytes`; what the file does not have are zeros. */
  read(bytes: Uint8Array, host: number, guest: number): Promise<void>
  /** As `read`, if that needs no wait: false says to `read`. */
  readonly readAtOnce?: ((bytes: Uint8Array, host: number) => boolean) | undefined
  /** Resolves when written, not when durable. */
  write(bytes: Uint8Array, host: number, guest: number): Promise<void>
  /** Make the range read as zeros and, without `unmap`, keep it allocated. */
  writeZeroes(host: number, length: number, options: { unmap: boolean }, guest: number): Promise<void>
  /** Reserve no space, but let the file reach to `length` bytes. */
  truncate(length: number): Promise<void>
  /** Give the range back to the host: clusters that nothing maps any more, or that read as zeros. Advisory. */
  punch(host: number, length: number): Promise<void>
}
