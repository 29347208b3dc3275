// The reference of the API, made of the comments in lib/:  npm run docs   -> out/docs/index.html
//
// What typedoc.json says: a type that is referred to but not exported is an error, as is a link that leads nowhere.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { tools } from './tools.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const typedoc = tools('typedoc', 'typescript')('typedoc', 'bin/typedoc')
// Without a repository to link to, it would warn.
const { status: noOrigin } = spawnSync('git', ['remote', 'get-url', 'origin'], { cwd: root })
const options = noOrigin === 0 ? [] : ['--disableSources']
process.exitCode =
  spawnSync(process.execPath, [typedoc, ...options], { cwd: root, stdio: 'inherit' }).status ?? 1
