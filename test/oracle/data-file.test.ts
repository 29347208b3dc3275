import { mkdir, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { runCli, runCommand } from '../support/cli.js'
import { makeFolder } from '../support/temp-folder.js'

type Tool = 'qemu-img' | 'qcow2'

/** Run a command in a folder. @returns exit code and text, the tool's own name left out */
async function tell(tool: Tool, folder: string, line: string): Promise<string> {
  // A blank argument is written as "".
  const args = line.split(' ').map((word) => (word === '""' ? '' : word))
  const { code, stdout, stderr } =
    tool === 'qemu-img' ? await runCommand([tool, ...args], folder) : await runCli(args, folder)
  return `${code} ${stdout}${stderr}`.replaceAll(/\b(qemu-img|qcow2): /g, '')
}

async function twins(t: ExecutionContext): Promise<{ stock: string; ours: string }> {
  const folder = await makeFolder(t)
  const [stock, ours] = [join(folder, 'stock'), join(folder, 'ours')]
  await mkdir(stock)
  await mkdir(ours)
  return { stock, ours }
}

/** The stock tools look for a relative data file where they run. */
async function io(folder: string, image: string, commands: readonly string[]): Promise<void> {
  const words = ['qemu-io', ...commands.flatMap((command) => ['-c', command]), image]
  const { code, stdout, stderr } = await runCommand(words, folder)
  if (code !== 0 || /failed/.test(stdout + stderr)) throw new Error(`${words.join(' ')}: ${stdout}${stderr}`)
}

async function sameFiles(t: ExecutionContext, stock: string, ours: string, after: string): Promise<void> {
  const names = (await readdir(stock)).sort()
  t.deepEqual((await readdir(ours)).sort(), names, after)
  for (const name of names) {
    const [theirs, own] = [await readFile(join(stock, name)), await readFile(join(ours, name))]
    t.true(theirs.equals(own), `${name} after ${after}`)
  }
}

test('created, resized and described to the byte as by the stock tool', async (t) => {
  const { stock, ours } = await twins(t)
  const lines = [
    'create -f qcow2 -o data_file=a.raw a.qcow2 1M',
    'create -f qcow2 -o data_file=b.raw,data_file_raw=on b.qcow2 1M',
    'create -f qcow2 -o data_file=c.raw,cluster_size=512 c.qcow2 10001',
    'create -f qcow2 -o data_file=d.raw,preallocation=full,cluster_size=4k d.qcow2 300k',
    'create -f qcow2 -o data_file=e.raw,lazy_refcounts=on -b a.qcow2 -F qcow2 e.qcow2',
    'create -f qcow2 -o data_file_raw=on x.qcow2 1M',
    'create -f qcow2 -o data_file=x.raw,compat=0.10 x.qcow2 1M',
    'create -f qcow2 -o data_file=f.raw,extended_l2=on f.qcow2 1M',
    'create -f qcow2 -o data_file=g.raw,data_file_raw=on,extended_l2=on g.qcow2 1M',
    'create -f qcow2 -o data_file=h.raw,extended_l2=on,preallocation=metadata -b a.qcow2 -F qcow2 h.qcow2',
    'info --output=json g.qcow2',
    'check g.qcow2',
    'map --output=json g.qcow2',
    'map --output=json h.qcow2',
    'resize g.qcow2 3M',
    'resize --shrink g.qcow2 100k',
    'map --output=json g.qcow2',
    'info --output=json b.qcow2',
    'check a.qcow2',
    'check b.qcow2',
    'check --output=json d.qcow2',
    'map --output=json b.qcow2',
    'map b.qcow2',
    'map --output=json e.qcow2',
    'measure -O qcow2 -o data_file=foo --size 1G',
    'resize a.qcow2 3M',
    'resize b.qcow2 3M',
    'resize --shrink b.qcow2 100k',
    'map --output=json b.qcow2',
    'snapshot -c one a.qcow2',
    'snapshot -l a.qcow2',
    'snapshot -c one f.qcow2',
    'amend -o data_file_raw=on f.qcow2',
    'amend -o data_file_raw=off f.qcow2',
    'amend -o data_file=f2.raw f.qcow2',
    'info --output=json f.qcow2',
    'amend -o data_file=f3.raw f.qcow2',
    'amend -o data_file=g.raw,data_file_raw=off g.qcow2',
    'info --output=json g.qcow2',
    'amend -o data_file_raw=on g.qcow2',
    'amend -o data_file= g.qcow2',
    'info --output=json g.qcow2',
  ]
  for (const line of lines) {
    // What the file takes on the host is not asked here.
    const text = async (tool: Tool, folder: string): Promise<string> =>
      (await tell(tool, folder, line)).replace(/"actual-size": \d+/, '')
    t.is(await text('qcow2', ours), await text('qemu-img', stock), line)
    await sameFiles(t, stock, ours, line)
  }
})

for (const kind of ['cluster_size=4k', 'cluster_size=16k,extended_l2=on']) {
  test(`each reads, maps, checks and compares what the other has written, ${kind}`, eachReads, kind)
}

async function eachReads(t: ExecutionContext, kind: string): Promise<void> {
  const { stock, ours } = await twins(t)
  for (const raw of ['off', 'on']) {
    const base = `-f qcow2 -o data_file=d.raw,data_file_raw=${raw},${kind} d.qcow2 1M`
    for (const [tool, folder] of [
      ['qcow2', ours],
      ['qemu-img', stock],
    ] as const) {
      await tell(tool, folder, `create ${base}`)
      await io(folder, 'd.qcow2', [
        'write -P 1 0 100k',
        'write -P 2 300k 5k',
        'discard 16k 16k',
        'write -z 40k 8k',
        'write -z -u 60k 4k',
      ])
    }
    const lines = ['map --output=json d.qcow2', 'map d.qcow2', 'check d.qcow2', 'convert -O raw d.qcow2 flat']
    for (const line of lines) t.is(await tell('qcow2', ours, line), await tell('qemu-img', stock, line), line)
    await sameFiles(t, stock, ours, raw)
    t.is(await tell('qcow2', ours, 'compare d.qcow2 flat'), '0 Images are identical.\n')
    t.is(await tell('qemu-img', ours, 'compare d.qcow2 flat'), '0 Images are identical.\n')
    await tell('qcow2', ours, `convert -O qcow2 -o data_file=z.raw,data_file_raw=${raw} d.qcow2 z.qcow2`)
    await tell('qemu-img', stock, `convert -O qcow2 -o data_file=z.raw,data_file_raw=${raw} d.qcow2 z.qcow2`)
    t.is(await tell('qemu-img', ours, 'check z.qcow2'), await tell('qemu-img', stock, 'check z.qcow2'))
    t.is(await tell('qemu-img', ours, 'compare z.qcow2 flat'), '0 Images are identical.\n')
    t.is((await stat(join(ours, 'z.raw'))).size, 2 ** 20)
  }
}

test('commits and rebases between images with data files leave what the stock tool leaves', async (t) => {
  const { stock, ours } = await twins(t)
  for (const [tool, folder] of [
    ['qcow2', ours],
    ['qemu-img', stock],
  ] as const) {
    const at = (name: string): string => join(folder, name)
    await tell(tool, folder, 'create -f qcow2 -o data_file=base.raw base.qcow2 1M')
    await io(folder, 'base.qcow2', ['write -P 1 0 400k'])
    await tell(tool, folder, 'create -f qcow2 -o data_file=top.raw -b base.qcow2 -F qcow2 top.qcow2')
    await io(folder, 'top.qcow2', ['write -P 2 100k 100k', 'write -z 300k 200k'])
    t.regex(await tell(tool, folder, 'commit top.qcow2'), /^0 /)
    await io(folder, 'top.qcow2', ['read -q -P 1 0 100k', 'read -q -P 2 100k 100k', 'read -q -P 0 300k 700k'])
    // A block of the file system's own may be left.
    t.true((await stat(at('top.raw'))).blocks <= 8, 'what was committed is given back')
    t.regex(await tell(tool, folder, 'rebase -b "" top.qcow2'), /^0 /)
    t.regex(await tell('qemu-img', folder, 'check top.qcow2'), /^0 /)
  }
  t.is(await tell('qemu-img', ours, 'compare base.qcow2 top.qcow2'), '0 Images are identical.\n')
  t.true((await readFile(join(ours, 'base.raw'))).equals(await readFile(join(stock, 'base.raw'))))
})
