import { dirname } from 'node:path'
import { pathToFileURL } from 'node:url'
import { build } from 'esbuild'

const body = `
const run = async () => {
  const path = 'program-' + process.pid + '.qcow2'
  await createImage(path, { size: 1048576 })
  const image = await openImage(path)
  await image.write(Uint8Array.of(1, 2, 3), 70000)
  const bytes = await image.read({ offset: 69999, length: 5 })
  await image.close()
  console.log(JSON.stringify([...bytes]))
}
`

/** A program that needs the addon, and what it prints. */
export const program = {
  imports: `import { createImage, openImage } from 'qcow2'${body}run()\n`,
  requires: `const { createImage, openImage } = require('qcow2')${body}run()\n`,
  prints: '[0,1,2,3,0]\n',
  /** To be put behind it. */
  showsAddon: `process.on('exit', () => {
  console.log('addon: ' + process.report.getReport().sharedObjects.find((name) => name.endsWith('.node')))
})
`,
}

/** Each as the README says. They make a file in `out`, and give its name. */
export const bundlers = {
  esbuild: async ({ entry, out }) => {
    const options = { bundle: true, platform: 'node', format: 'esm', external: ['qcow2'] }
    await build({ entryPoints: [entry], outfile: `${out}/esbuild.mjs`, logLevel: 'warning', ...options })
    return 'esbuild.mjs'
  },

  vite: async ({ entry, out, tools }) => {
    const vite = await import(pathToFileURL(tools('vite')('vite', 'dist/node/index.js')))
    await vite.build({
      configFile: false,
      root: dirname(out),
      logLevel: 'warn',
      build: {
        outDir: out,
        lib: { entry, formats: ['es'], fileName: () => 'vite.mjs' },
        rolldownOptions: { external: ['qcow2', /^node:/] },
      },
    })
    return 'vite.mjs'
  },

  webpack: (where) =>
    webpack(where, {
      output: { filename: 'webpack.mjs', module: true, chunkFormat: 'module' },
      experiments: { outputModule: true },
      externals: { qcow2: 'module qcow2' },
    }),

  'webpack, CommonJS': (where) =>
    webpack(where, { output: { filename: 'webpack.cjs' }, externals: { qcow2: 'commonjs qcow2' } }),
}

async function webpack({ entry, out, tools }, { output, ...options }) {
  const { default: build } = await import(pathToFileURL(tools('webpack')('webpack', 'lib/index.js')))
  const shape = { mode: 'production', target: 'electron-main', entry, output: { path: out, ...output } }
  const stats = await new Promise((resolve, reject) => {
    build({ ...shape, ...options }, (error, result) => (error ? reject(error) : resolve(result)))
  })
  if (stats.hasErrors() || stats.hasWarnings()) throw new Error(stats.toString())
  return output.filename
}
