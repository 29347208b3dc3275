// The prebuilt binaries: where each goes, under the names that node-gyp-build and @electron/rebuild look for (no tag for glibc, armv8 on
// 64-bit ARM, musl beside glibc), and what compiles it on a Linux machine.

/** Newest symbols that a glibc prebuild may ask for: what Node's own binaries need. */
export const glibcFloor = '2.28'

/** The oldest Node that the package is for; Node-API makes one binary serve all later ones. */
export const nodeVersion = '20.19.0'

/** Oldest macOS, as in binding.gyp. */
const macos = '11.0'

export const targets = {
  'linux-x64': {
    platform: 'linux',
    arch: 'x64',
    file: 'node.napi.node',
    tags: [],
    zig: `x86_64-linux-gnu.${glibcFloor}`,
  },
  'linux-x64-musl': {
    platform: 'linux',
    arch: 'x64',
    file: 'node.napi.musl.node',
    tags: ['--tag-libc', 'musl'],
    zig: 'x86_64-linux-musl',
  },
  'linux-arm64': {
    platform: 'linux',
    arch: 'arm64',
    file: 'node.napi.armv8.node',
    tags: ['--tag-armv', '8'],
    zig: `aarch64-linux-gnu.${glibcFloor}`,
  },
  'linux-arm64-musl': {
    platform: 'linux',
    arch: 'arm64',
    file: 'node.napi.armv8.musl.node',
    tags: ['--tag-armv', '8', '--tag-libc', 'musl'],
    zig: 'aarch64-linux-musl',
  },
  'darwin-x64': {
    platform: 'darwin',
    arch: 'x64',
    file: 'node.napi.node',
    tags: [],
    zig: `x86_64-macos.${macos}-none`,
  },
  'darwin-arm64': {
    platform: 'darwin',
    arch: 'arm64',
    file: 'node.napi.armv8.node',
    tags: ['--tag-armv', '8'],
    zig: `aarch64-macos.${macos}-none`,
  },
  'win32-x64': {
    platform: 'win32',
    arch: 'x64',
    file: 'node.napi.node',
    tags: [],
    mingw: 'x86_64-w64-mingw32',
  },
}

/** Path below the package. */
export function pathOf({ platform, arch, file }) {
  return `prebuilds/${platform}-${arch}/${file}`
}

/** @returns those that are named, or all; ends the process at a name that there is not */
export function chosen(names) {
  const unknown = names.filter((name) => !Object.hasOwn(targets, name))
  if (unknown.length > 0) {
    console.error(
      `No prebuild of that name: ${unknown.join(', ')}. There are: ${Object.keys(targets).join(', ')}`,
    )
    process.exit(1)
  }
  return names.length > 0 ? names : Object.keys(targets)
}
