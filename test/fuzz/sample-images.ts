import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { qemuImg, qemuIo } from '../support/qemu.js'

/** A sound image to start from. */
export type Sample = { readonly name: string; readonly bytes: Buffer }

type Recipe = {
  readonly name: string
  /** For `qemu-img create -o`. */
  readonly options: string
  readonly clusterSize: number
  readonly backing?: true
  readonly snapshots?: true
  readonly bitmaps?: true
  readonly encrypted?: true
}

const recipes: readonly Recipe[] = [
  { name: 'v3-512', options: 'cluster_size=512', clusterSize: 512 },
  { name: 'v3-4096-narrow', options: 'cluster_size=4096,refcount_bits=1', clusterSize: 4096 },
  { name: 'v3-4096-wide', options: 'cluster_size=4096,refcount_bits=64', clusterSize: 4096, bitmaps: true },
  { name: 'v2-4096', options: 'cluster_size=4096,compat=0.10', clusterSize: 4096, snapshots: true },
  { name: 'v3-65536', options: 'cluster_size=65536', clusterSize: 65536, snapshots: true, bitmaps: true },
  { name: 'overlay', options: 'cluster_size=4096', clusterSize: 4096, backing: true, snapshots: true },
  { name: 'lazy', options: 'cluster_size=1024,lazy_refcounts=on', clusterSize: 1024 },
  { name: 'zstd', options: 'cluster_size=16384,compression_type=zstd', clusterSize: 16384 },
  { name: 'extended', options: 'cluster_size=16384,extended_l2=on', clusterSize: 16384, snapshots: true },
  { name: 'data-file', options: 'cluster_size=4096,data_file=DATA', clusterSize: 4096 },
  {
    name: 'data-file-extended',
    options: 'cluster_size=16384,extended_l2=on,data_file=DATA',
    clusterSize: 16384,
  },
  {
    name: 'data-file-raw-extended',
    options: 'cluster_size=16384,extended_l2=on,data_file=DATA,data_file_raw=on',
    clusterSize: 16384,
  },
  {
    name: 'data-file-luks',
    options: 'cluster_size=4096,data_file=DATA',
    clusterSize: 4096,
    encrypted: true,
  },
  {
    name: 'data-file-luks-extended',
    options: 'cluster_size=16384,extended_l2=on,data_file=DATA',
    clusterSize: 16384,
    encrypted: true,
  },
  { name: 'luks', options: 'cluster_size=4096', clusterSize: 4096, encrypted: true },
  {
    name: 'luks-extended',
    options: 'cluster_size=16384,extended_l2=on',
    clusterSize: 16384,
    encrypted: true,
  },
]

/** Have the stock tools make small images with all that the format has. */
export async function sampleImages(folder: string): Promise<Sample[]> {
  const base = join(folder, 'base.raw')
  await writeFile(base, Buffer.alloc(1024 * 1024, 0x5a))
  const samples: Sample[] = []
  for (const recipe of recipes) samples.push(await makeSample(folder, base, recipe))
  return samples
}

async function makeSample(folder: string, base: string, recipe: Recipe): Promise<Sample> {
  const { name, clusterSize } = recipe
  const path = join(folder, `${name}.qcow2`)
  const secret = ['--object', 'secret,id=key,data=abc']
  const lock = recipe.encrypted ? ',encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10' : ''
  const options = recipe.options.replace('DATA', join(folder, `${name}.data`)) + lock
  const create = ['create', '-q', '-f', 'qcow2', '-o', options]
  if (recipe.encrypted) create.splice(1, 0, ...secret)
  if (recipe.backing) create.push('-b', base, '-F', 'raw')
  await qemuImg(...create, path, '2M')
  const target = recipe.encrypted
    ? [...secret, '--image-opts', `driver=qcow2,file.filename=${path},encrypt.key-secret=key`]
    : [path]
  await qemuIo(target.at(-1) ?? path, writes(recipe), target.slice(0, -1))
  if (recipe.snapshots) {
    await qemuImg('snapshot', '-c', 'one', path)
    await qemuIo(path, [`write -P 5 0 ${2 * clusterSize}`, 'write -P 6 1M 60k'])
    await qemuImg('snapshot', '-c', 'two', path)
    await qemuIo(path, ['write -P 7 1M 30k'])
  }
  if (recipe.bitmaps) await qemuImg('bitmap', '--add', '-g', '65536', path, 'dirty')
  return { name, bytes: await readFile(path) }
}

function writes({ clusterSize, options, encrypted }: Recipe): string[] {
  const isCompressible = !encrypted && !options.includes('data_file')
  return [
    'write -P 1 0 100k',
    'write -P 2 1M 70k',
    ...(isCompressible
      ? [`write -c -P 3 1536k ${clusterSize}`, `write -c -P 4 ${1536 * 1024 + clusterSize} ${clusterSize}`]
      : []),
    ...(options.includes('0.10') ? [] : ['write -z 1792k 64k', 'write -z -u 1M 16k']),
    'write -P 8 2096640 512',
  ]
}
