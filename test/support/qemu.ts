import { execFile, execFileSync } from 'node:child_process'
import { readFile, rm } from 'node:fs/promises'

export type Outcome = { readonly code: number; readonly stdout: string; readonly stderr: string }

/** Run a program to its end, whatever its exit code. */
export function run(program: string, args: readonly string[], input?: string): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) => {
      if (error !== null && typeof error.code !== 'number') reject(new Error(error.message, { cause: error }))
      else resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr })
    })
    // A program that fails early does not read its input; its exit code tells.
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(input ?? '')
  })
}

/** Run `qemu-img` and see that it succeeds. @returns its standard output */
export async function qemuImg(...args: readonly string[]): Promise<string> {
  for (let left = attempts; ; left--) {
    const { code, stdout, stderr } = await run('qemu-img', args)
    if (code === 0) return stdout
    if (left > 1 && stderr.includes(unmeasured)) continue
    throw new Error(`qemu-img ${args.join(' ')} exits with ${code}: ${stdout}${stderr}`)
  }
}

/** It measures the processor when it makes a key, and on a busy machine it cannot, now and then. */
const unmeasured = 'Unable to get accurate CPU usage'
const attempts = 20

/**
 * Run `qemu-io` commands on an image in one process, in order. Commands are those of its own language:
 * `write -P 7 4096 512` fills with bytes 7, `write -z [-u]` writes zeroes, `discard`, `truncate SIZE`, `flush`, ...
 * @returns its standard output
 * @throws Error  a command failed
 */
export async function qemuIo(
  path: string,
  commands: readonly string[],
  options: readonly string[] = [],
): Promise<string> {
  return await qemuIoOn([...options, path], commands)
}

/** As `qemuIo`. @param image  how the tool is told of it: options, and the name */
export async function qemuIoOn(image: readonly string[], commands: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await run('qemu-io', image, `${commands.join('\n')}\nquit\n`)
  const failure = /^.*(failed|error|invalid|unknown|Could not).*$/im.exec(stdout + stderr)
  if (code !== 0 || failure !== null)
    throw new Error(`qemu-io ${image.at(-1)} exits with ${code}: ${stdout}${stderr}`)
  return stdout
}

/** What the stock tool says is wrong with an image: '' if nothing is, leaks included. */
export function qemuCheck(path: string): Promise<string> {
  return qemuCheckOf(['-f', 'qcow2', path])
}

/** As `qemuCheck`. @param image  how the tool is told of it */
export async function qemuCheckOf(image: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await run('qemu-img', ['check', ...image])
  return code === 0 ? '' : `qemu-img check exits with ${code}: ${stdout}${stderr}`
}

/**
 * The guest's bytes as the stock tool reads them.
 * @param copy  where they are for a moment; default: beside the image
 */
export function qemuRead(
  path: string,
  format: 'qcow2' | 'raw' = 'qcow2',
  copy = `${path}.read-by-qemu`,
): Promise<Buffer> {
  return qemuReadOf(['-f', format, path], copy)
}

/** As `qemuRead`. @param image  how the tool is told of it */
export async function qemuReadOf(image: readonly string[], copy: string): Promise<Buffer> {
  await qemuImg('convert', ...image, '-O', 'raw', copy)
  try {
    return await readFile(copy)
  } finally {
    await rm(copy)
  }
}

/** 'qemu-img version 7.2.x'; undefined where there is none. */
export function qemuVersion(): string | undefined {
  try {
    return /version (\d+\.\d+)/.exec(execFileSync('qemu-img', ['--version'], { encoding: 'utf8' }))?.[1]
  } catch {
    return undefined
  }
}
