import { copyFile, open, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createImage, openImage } from '../../lib/index.js'
import { runCommand } from './cli.js'
import { passphrase, qemuCreateEncrypted, qemuIoEncrypted } from './encrypted.js'

const refcountBlock = 2 * 65536
const incompatibleFeatures = 72
const autoclearFeatures = 88

async function stock(folder: string, ...words: string[]): Promise<void> {
  const { code, stdout, stderr } = await runCommand(words, folder)
  if (code !== 0 || /error|failed/i.test(stdout + stderr))
    throw new Error(`${words.join(' ')}: ${stdout}${stderr}`)
}

/** Change bytes of a file. */
async function poke(path: string, offset: number, ...bytes: number[]): Promise<void> {
  const file = await open(path, 'r+')
  try {
    await file.write(Uint8Array.from(bytes), 0, bytes.length, offset)
  } finally {
    await file.close()
  }
}

/**
 * Images of all sorts, made by the stock tools, in an empty folder:
 * sound ones (empty, data, overlay, version2, compressed, snapshots, big, sub/overlay), a.raw, and damaged ones.
 */
export async function makeFixtures(folder: string): Promise<void> {
  const at = (name: string): string => join(folder, name)
  const make = (...words: string[]): Promise<void> => stock(folder, 'qemu-img', 'create', '-q', ...words)
  const io = (name: string, ...commands: string[]): Promise<void> =>
    stock(folder, 'qemu-io', '-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), name)

  await make('-f', 'qcow2', 'empty.qcow2', '4M')
  await make('-f', 'qcow2', 'nothing.qcow2', '0')
  await make('-f', 'qcow2', 'data.qcow2', '4M')
  await io('data.qcow2', 'write -P 1 0 200k', 'write -z 1M 128k', 'write -P 3 3M 64k')
  await make('-f', 'qcow2', '-b', 'data.qcow2', '-F', 'qcow2', 'overlay.qcow2', '6M')
  await io('overlay.qcow2', 'write -P 1 64k 20k', 'discard 1M 64k')
  await make('-f', 'qcow2', '-o', 'compat=0.10,cluster_size=4k', 'version2.qcow2', '64M')
  await io('version2.qcow2', 'write -P 9 1M 1M')
  await make('-f', 'qcow2', '-o', 'lazy_refcounts=on,refcount_bits=1,cluster_size=2M', 'big.qcow2', '5T')
  await make('-f', 'qcow2', '-o', 'preallocation=metadata', 'preallocated.qcow2', '1M')
  await make('-f', 'raw', 'a.raw', '10M')
  await make('-f', 'raw', 'nothing.raw', '0')
  await writeFile(at('odd.raw'), 'less than a sector')
  await writeFile(at('odder.raw'), 'less than a sector, but longer')
  await stock(folder, 'qemu-img', 'convert', '-c', '-O', 'qcow2', 'data.qcow2', 'compressed.qcow2')
  const zstd = ['-o', 'compression_type=zstd']
  await stock(folder, 'qemu-img', 'convert', '-c', '-O', 'qcow2', ...zstd, 'data.qcow2', 'zstd.qcow2')
  await copyFile(at('data.qcow2'), at('snapshots.qcow2'))
  await stock(folder, 'qemu-img', 'snapshot', '-c', 'before the update', 'snapshots.qcow2')
  await stock(folder, 'qemu-img', 'snapshot', '-c', 'second', 'snapshots.qcow2')
  await stock(folder, 'qemu-img', 'bitmap', '--add', 'snapshots.qcow2', 'backup')
  await stock(folder, 'qemu-img', 'bitmap', '--add', '-g', '128k', '--disable', 'snapshots.qcow2', 'old')
  await writeFile(at('a,b c.raw'), 'x'.repeat(1024))
  await make('-f', 'qcow2', '-b', 'a,b c.raw', '-F', 'raw', 'ümlaut "quoted".qcow2')
  // The stock tool takes seconds for a key, and writes to an image of ours as to one of its own.
  const encrypt = { format: 'luks', passphrase, iterTime: 1 } as const
  await createImage(at('luks.qcow2'), { size: 4 * 1024 ** 2, encrypt })
  const luks = await openImage(at('luks.qcow2'), { encryption: { passphrase } })
  await luks.encryption.addKey({ currentPassphrase: passphrase, passphrase: 'two', keySlot: 5, iterTime: 1 })
  await luks.close()
  await qemuCreateEncrypted(at('aes.qcow2'), '4M', [], 'aes')
  for (const name of ['luks.qcow2', 'aes.qcow2']) await qemuIoEncrypted(at(name), ['write -P 1 64k 200k'])
  await stock(folder, 'mkdir', 'sub')
  await make('-f', 'qcow2', '-b', '../data.qcow2', '-F', 'qcow2', 'sub/overlay.qcow2')
  await make('-f', 'qcow2', '-u', '-b', 'missing.raw', '-F', 'raw', 'orphan.qcow2', '1M')
  await make('-f', 'qcow2', 'loop1.qcow2', '1M')
  await make('-f', 'qcow2', '-b', 'loop1.qcow2', '-F', 'qcow2', 'loop2.qcow2')
  await stock(folder, 'qemu-img', 'rebase', '-u', '-b', 'loop2.qcow2', '-F', 'qcow2', 'loop1.qcow2')
  await symlink('nowhere', at('dangling'))

  await copyFile(at('snapshots.qcow2'), at('stale-bitmaps.qcow2'))
  await poke(at('stale-bitmaps.qcow2'), autoclearFeatures + 7, 0)
  const spoil = async (name: string, ...changes: (readonly [number, ...number[]])[]): Promise<void> => {
    await copyFile(at('data.qcow2'), at(name))
    for (const [offset, ...bytes] of changes) await poke(at(name), offset, ...bytes)
  }
  const leak = [refcountBlock + 2 * 10, 0, 1] as const
  const unreferenced = [refcountBlock + 2 * 5, 0, 0] as const
  await spoil('leak.qcow2', leak)
  await truncate(at('leak.qcow2'), 11 * 65536)
  await spoil('corrupt.qcow2', unreferenced)
  await spoil('both.qcow2', leak, unreferenced)
  await truncate(at('both.qcow2'), 11 * 65536)
  await spoil('dirty.qcow2', [incompatibleFeatures + 7, 1])
  await spoil('marked-corrupt.qcow2', [incompatibleFeatures + 7, 2])
  await spoil('unknown-feature.qcow2', [incompatibleFeatures, 0x80])
  await spoil('version9.qcow2', [7, 9])
  await spoil('truncated.qcow2')
  await truncate(at('truncated.qcow2'), 100)
  await spoil('three-bytes.qcow2')
  await truncate(at('three-bytes.qcow2'), 3)
}
