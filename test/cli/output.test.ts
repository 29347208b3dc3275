import test from 'ava'
import { cliPath, runCli, runCommand } from '../support/cli.js'
import { makeFolder } from '../support/temp-folder.js'

test('standard output stands before a later message when both go to one place', async (t) => {
  const folder = await makeFolder(t)
  await runCli(['create', '-f', 'qcow2', 'x.qcow2', '1M'], folder)
  const script = `"${process.execPath}" "${cliPath}" create -f qcow2 -o cluster_size=3 y.qcow2 1M 2>&1`
  const { stdout } = await runCommand(['sh', '-c', script], folder)
  t.deepEqual(
    stdout.split('\n').map((line) => line.split(' ')[0]),
    ['Formatting', 'qcow2:', ''],
  )
})

test('a long output is written to a slow, non-blocking reader in full', async (t) => {
  const folder = await makeFolder(t)
  await runCli(['create', '-f', 'qcow2', '-o', 'cluster_size=512', 'x.qcow2', '4M'], folder)
  // Every other cluster: thousands of rows.
  const writer = new URL('../support/write-stripes.js', import.meta.url).pathname
  await runCommand([process.execPath, writer, 'x.qcow2'], folder)
  // The first process makes the pipe non-blocking for all that share it.
  const noise = `"${process.execPath}" -e "process.stdout._handle.setBlocking(false); setTimeout(() => {}, 3000)"`
  const script = `(${noise} & "${process.execPath}" "${cliPath}" map --output=json x.qcow2; wait) | (sleep 1; cat)`
  const { stdout } = await runCommand(['sh', '-c', script], folder)
  t.true((JSON.parse(stdout) as unknown[]).length > 4000)
})
