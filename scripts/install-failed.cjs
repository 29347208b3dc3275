// Said by `npm install` when no prebuilt addon fits and none could be compiled: what was tried, and what to do.
const { existsSync, readdirSync } = require('node:fs')
const { join } = require('node:path')

const folder = join(__dirname, '..', 'prebuilds')
const platforms = existsSync(folder)
  ? readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory())
  : []
const binaries = platforms.flatMap(({ name }) =>
  readdirSync(join(folder, name)).map((file) => `${name}/${file}`),
)

console.error(`
qcow2: there is no native addon for ${process.platform}-${process.arch} with Node ${process.versions.node}.
  looked in: ${folder} (${binaries.length === 0 ? 'there is none' : `there are ${binaries.join(', ')}`})
  then tried: node-gyp rebuild (what failed is said above)
What to do: install a C++17 compiler, make and Python 3, and run the installation again.
  Debian, Ubuntu: apt-get install g++ make python3      Alpine: apk add g++ make python3
  macOS: xcode-select --install                         Windows: the "Desktop development with C++" of Visual Studio
Or build it on another machine of this kind (npm run build:native), install here with --ignore-scripts, and let the
environment variable QCOW2_PREBUILD name the folder that holds its build/Release/qcow2.node.
`)
process.exitCode = 1
