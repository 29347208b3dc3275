import { requests, type Requester } from '../../../lib/queue/requests.js'

/**
 * Waits twice, for different lengths of time, for a file that nobody else refers to; needs --expose-gc.
 * Prints whether the file is there while both wait, when one is through (or has failed), and when both are.
 */
const collect = (globalThis as { gc?: () => void }).gc
if (collect === undefined) throw new Error('run me with --expose-gc')

/** It alone knows those who wait for it, as a queue does. */
type File = Requester & { readonly waits: { readonly until: Promise<void>; end(): void }[] }

function newWait(fails: boolean): File['waits'][number] {
  let end = (): void => undefined
  const until = new Promise<void>((resolve, reject) => {
    end = () => (fails ? reject(new Error('no room')) : resolve())
  })
  return { until, end }
}

/** Apart, so that nothing below refers to the file. */
function waitedFor(number: number, firstFails: boolean): WeakRef<File> {
  const file: File = {
    number,
    failure: () => new Error('not expected'),
    settled: () => undefined,
    progressed: () => undefined,
    waits: [newWait(firstFails), newWait(!firstFails)],
  }
  requests().add(file)
  for (const { until } of file.waits) requests().keep(file, until)
  return new WeakRef(file)
}

/** Collects in turns of its own: an object that a weak reference was made of, or gave, stays until the turn is over. */
async function isThere(file: WeakRef<File>): Promise<boolean> {
  for (let round = 0; round < 5; round++) {
    await new Promise((resolve) => setTimeout(resolve, 1))
    collect?.()
  }
  return file.deref() !== undefined
}

const seen: boolean[] = []
for (const firstFails of [false, true]) {
  const file = waitedFor(2 ** 30 + seen.length, firstFails)
  seen.push(await isThere(file))
  for (let index = 0; index < 2; index++) {
    file.deref()?.waits[index]?.end()
    seen.push(await isThere(file))
  }
}
process.stdout.write(JSON.stringify(seen))
