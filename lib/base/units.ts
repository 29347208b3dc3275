/** Bytes are the unit of every offset and length here unless a name says otherwise. Both are exact up to 2^53. */

declare const guestBrand: unique symbol
declare const hostBrand: unique symbol
declare const sectionBrand: unique symbol

/** A byte position on the disk that the guest sees. */
export type GuestOffset = number & { readonly [guestBrand]: true }

/** A byte position in the image file. */
export type HostOffset = number & { readonly [hostBrand]: true }

/**
 * The running number of a section of the block queue. Nodes of a later section are submitted only after all nodes of
 * the earlier ones are durable. 0 is before everything: it is always durable.
 */
export type Section = number & { readonly [sectionBrand]: true }

export const guestOffset = (bytes: number): GuestOffset => bytes as GuestOffset
export const hostOffset = (bytes: number): HostOffset => bytes as HostOffset
export const section = (running: number): Section => running as Section

/** Always durable: what comes after it waits for nothing. */
export const noSection = section(0)

/** The smallest piece that a disk writes as one; also the granularity of virtual sizes. */
export const sectorSize = 512
