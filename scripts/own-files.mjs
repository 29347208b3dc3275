import { spawnSync } from 'node:child_process'
import { existsSync, lstatSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** Where any machine that runs Node has files to show. */
const candidates = ['/usr/share', '/usr/lib/python3', dirname(dirname(process.execPath)), '/usr/bin', '/etc']
const least = 16 * 2 ** 20
const most = 300 * 2 ** 20

/**
 * Make an ext4 file system image out of a folder of this machine.
 * @returns its path
 * @throws Error  no mke2fs, or no folder of a fitting size
 */
export function makeDiskOfOwnFiles(path) {
  const fitting = candidates
    .map((name) => [name, sizeOf(name)])
    .filter(([, bytes]) => bytes >= least && bytes <= most)
  const [folder, bytes] = fitting.sort((a, b) => b[1] - a[1])[0] ?? []
  if (folder === undefined)
    throw new Error('no folder here has a fitting size: give a disk image as argument')
  const mke2fs = ['/usr/sbin/mke2fs', '/sbin/mke2fs'].find((program) => existsSync(program))
  if (mke2fs === undefined)
    throw new Error('no mke2fs here (Debian: e2fsprogs): give a disk image as argument')
  // A quarter more for the file system itself, and room for the guest to write to.
  const megabytes = Math.ceil((bytes * 1.25) / 2 ** 20) + 256
  console.log(`Making an ext4 image of ${folder}`)
  // Trees of small files need more inodes than usual.
  const words = ['-q', '-F', '-t', 'ext4', '-i', '4096', '-d', folder, path, `${megabytes}M`]
  const { status, stderr } = spawnSync(mke2fs, words, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${mke2fs} ${words.join(' ')}: ${stderr}`)
  return path
}

/** Bytes that the files below take, in blocks of 4096. Counting stops where it is too much anyway. */
function sizeOf(folder) {
  let bytes = 0
  const folders = [folder]
  for (let next = folders.pop(); next !== undefined && bytes <= most; next = folders.pop()) {
    for (const entry of listed(next)) {
      const path = join(next, entry.name)
      if (entry.isDirectory()) folders.push(path)
      if (entry.isFile()) bytes += Math.ceil(lstatSync(path).size / 4096) * 4096
      bytes += 4096
    }
  }
  return bytes
}

function listed(folder) {
  try {
    return readdirSync(folder, { withFileTypes: true })
  } catch {
    return []
  }
}
