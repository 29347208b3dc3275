import { readFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'

/** The kernel's list may lack entries while others change it: it is believed when it says the same so often in a row. */
const agreeing = 3

/** The bytes of a file that somebody holds an OFD lock on, each as often as it is held. */
export async function lockedBytes(path: string): Promise<number[]> {
  const { ino } = await stat(path)
  let last = ''
  for (let alike = 0; ;) {
    const bytes = listed(ino)
    alike = JSON.stringify(bytes) === last ? alike + 1 : 1
    last = JSON.stringify(bytes)
    if (alike === agreeing) return bytes
  }
}

function listed(ino: number): number[] {
  const bytes: number[] = []
  for (const line of readFileSync('/proc/locks', 'utf8').split('\n')) {
    const match = /OFDLCK +ADVISORY +READ .*:(\d+) (\d+) (\d+)$/.exec(line)
    if (match === null || Number(match[1]) !== ino) continue
    for (let byte = Number(match[2]); byte <= Number(match[3]); byte++) bytes.push(byte)
  }
  return bytes.sort((a, b) => a - b)
}
