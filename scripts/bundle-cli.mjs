// The command as it is shipped: dist/lib/cli/main.cjs and a file for each verb beside it, made from the compiled modules.
//
// Scripts call the command hundreds of times, and most of its time went into loading some fifty modules: about 50 ms beside the
// 80 that a bare `node -e 0` takes on the machine where this was measured. One file each for the program and for a verb costs
// half of that, and as CommonJS, which starts without the asynchronous loader, half again.
import { rmSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const folder = fileURLToPath(new URL('../dist/lib/cli/', import.meta.url))

const isBundle = (name) => name.endsWith('.cjs')
for (const name of readdirSync(folder).filter(isBundle)) rmSync(`${folder}${name}`)

/** A verb is a file of its own, loaded when it is called. */
const verbsApart = {
  name: 'verbs-apart',
  setup({ onResolve }) {
    onResolve({ filter: /^\.\/verb-[a-z]+\.js$/ }, ({ path, kind }) =>
      kind === 'dynamic-import' ? { path: path.replace(/\.js$/, '.cjs'), external: true } : undefined,
    )
  },
}

await build({
  entryPoints: readdirSync(folder)
    .filter((name) => /^(main|verb-[a-z]+)\.js$/.test(name))
    .map((name) => `${folder}${name}`),
  outdir: folder,
  outExtension: { '.js': '.cjs' },
  bundle: true,
  minify: true,
  format: 'cjs',
  platform: 'node',
  target: 'node20.19',
  // `import()` would start the loader that this is to avoid.
  supported: { 'dynamic-import': false },
  define: { 'import.meta.url': 'moduleUrl' },
  banner: { js: 'const moduleUrl=require("node:url").pathToFileURL(__filename).href;' },
  plugins: [verbsApart],
  // Of use to few: loaded from where it is installed, when a cluster asks for it.
  external: ['fzstd'],
  logLevel: 'warning',
})
