import { Broken } from './broken.js'

const extensionType = 0x0537be77
const luks = 2

/**
 * Where the LUKS header of an encrypted image stands, with the material of its keys. Shares no code with lib/. qcow2 spec, "Full disk encryption header
 * pointer".
 * @returns undefined: the image is not encrypted
 * @throws Broken
 */
export function encryptionIn(view: DataView): { offset: number; bytes: number } | undefined {
  const method = view.getUint32(32)
  if (method === 0) return undefined
  if (method !== luks || view.getUint32(4) !== 3) throw new Broken('another encryption')
  let at = view.getUint32(100)
  for (let left = 32; left > 0 && view.getUint32(at) !== 0; left--) {
    if (view.getUint32(at) === extensionType) {
      const [offset, bytes] = [at + 8, at + 16].map((place) => {
        return view.getUint32(place) * 2 ** 32 + view.getUint32(place + 4)
      }) as [number, number]
      return { offset, bytes }
    }
    at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8
  }
  throw new Broken('no LUKS header')
}
