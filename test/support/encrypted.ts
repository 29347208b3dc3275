import { qemuCheckOf, qemuImg, qemuIoOn, qemuReadOf } from './qemu.js'

/** The passphrase of images in tests. */
export const passphrase = 'correct horse'

/** How stock tools are told of it. */
export const secret = ['--object', `secret,id=s0,data=${passphrase}`] as const

/** A name for stock tools: the image, and whose secret opens it. */
export function encryptedName(path: string): string {
  return `driver=qcow2,file.filename=${path},encrypt.key-secret=s0`
}

/** Create an encrypted image by the stock tool. @param options  further -o options, as `cluster_size=4k` */
export async function qemuCreateEncrypted(
  path: string,
  size: string,
  options: readonly string[] = [],
  format: 'luks' | 'aes' = 'luks',
): Promise<void> {
  const iterTime = format === 'luks' ? ['encrypt.iter-time=10'] : []
  const list = [`encrypt.format=${format}`, 'encrypt.key-secret=s0', ...iterTime, ...options].join(',')
  await qemuImg('create', '-q', '-f', 'qcow2', ...secret, '-o', list, path, size)
}

const told = (path: string): readonly string[] => [...secret, '--image-opts', encryptedName(path)]

/** Run `qemu-io` commands on an encrypted image. @throws Error  one failed, or a pattern was not there */
export async function qemuIoEncrypted(path: string, commands: readonly string[]): Promise<void> {
  await qemuIoOn(told(path), commands)
}

/** The guest's bytes as the stock tool decrypts them. */
export function qemuReadEncrypted(path: string): Promise<Buffer> {
  return qemuReadOf(told(path), `${path}.read-by-qemu`)
}

/** What the stock tool says is wrong with an encrypted image: '' if nothing is. */
export function qemuCheckEncrypted(path: string): Promise<string> {
  return qemuCheckOf(told(path))
}
