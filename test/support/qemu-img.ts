import { execFile } from 'node:child_process'
import * as fs from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'

/** The stock tools, the oracle of the suite. */
export type ToolResult = { readonly status: number; readonly stdout: string; readonly stderr: string }

function run(tool: string, args: readonly string[]): Promise<ToolResult> {
  return new Promise((resolve, reject) => {
    execFile(tool, args, { encoding: 'utf8', maxBuffer: 256 * 1024 * 1024 }, (error, stdout, stderr) => {
      if (error === null) resolve({ status: 0, stdout, stderr })
      else if (typeof error.code === 'number') resolve({ status: error.code, stdout, stderr })
      else if (error.signal) resolve({ status: 128, stdout, stderr: `${stderr}killed by ${error.signal}` })
      else reject(error)
    })
  })
}

/** Run qemu-img with any outcome. */
export function qemuImg(...args: readonly string[]): Promise<ToolResult> {
  return run('qemu-img', args)
}

/** Run qemu-img, which must succeed. @returns its standard output */
export async function qemuImgOk(...args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await qemuImg(...args)
  if (status !== 0) throw new Error(`qemu-img ${args.join(' ')}: exit ${status}: ${stderr}${stdout}`)
  return stdout
}

/** Run qemu-io commands on an image; all must succeed. */
export async function qemuIo(image: string, commands: readonly string[], format = 'qcow2'): Promise<string> {
  const args = ['-f', format, ...commands.flatMap((command) => ['-c', command]), image]
  const { status, stdout, stderr } = await run('qemu-io', args)
  if (status !== 0 || stderr !== '')
    throw new Error(`qemu-io ${args.join(' ')}: exit ${status}: ${stderr}${stdout}`)
  return stdout
}

/** A directory of its own for a test, removed when `dispose` is called. */
export function temporaryDirectory(): { path: string; file(name: string): string; dispose(): void } {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'qcow2-test-'))
  return {
    path: directory,
    file: (name) => path.join(directory, name),
    dispose: () => fs.rmSync(directory, { recursive: true, force: true }),
  }
}
