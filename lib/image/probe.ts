import type { BlockBackend } from '../queue/backend.js'
import { magic } from '../qcow2/spec.js'

export type ImageFormat = 'qcow2' | 'raw'

export const imageFormats: readonly ImageFormat[] = ['qcow2', 'raw']

/**
 * What a file looks like: qcow2 if it begins with the magic, else raw, which has no mark. A guest can write the magic
 * to its raw disk, so that the answer may be believed only for files that no guest has written, or when nothing follows from it.
 */
export async function probeFormat(backend: BlockBackend): Promise<ImageFormat> {
  const bytes = new Uint8Array(4)
  await backend.read(bytes, 0)
  return hasMagic(bytes) ? 'qcow2' : 'raw'
}

/** Whether bytes that stand at offset 0 make a file look like qcow2. */
export function hasMagic(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) === magic
}
