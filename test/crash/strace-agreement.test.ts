import { spawnSync } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { assert } from '../../lib/base/assert.js'
import type { DeviceEvent } from '../../lib/queue/memory-device.js'
import { runProgram } from '../support/child.js'
import { seedOfRun } from '../support/seeded-random.js'
import { makeFolder } from '../support/temp-folder.js'

// What the addon logs, and what the kernel was asked.

const hasStrace = spawnSync('strace', ['-V']).status === 0
const canTrace = hasStrace && process.env['LD_PRELOAD'] === undefined

/** Something that was done to the file; times are positions in the log, or in the trace. */
type Change = { readonly what: string; readonly begin: number; end: number }

function logged(events: readonly DeviceEvent[]): Change[] {
  const open = new Map<string, Change>()
  const found: Change[] = []
  for (const [time, event] of events.entries()) {
    if (event.type === 'NSUB' || event.type === 'SSUB') {
      const change: Change = {
        what: event.type === 'SSUB' ? 'sync' : `${event.kind} ${event.offset}+${event.length}`,
        begin: time,
        end: Number.POSITIVE_INFINITY,
      }
      open.set(`${event.type[0]}${event.id}`, change)
      found.push(change)
    } else if (event.type === 'NEND' || event.type === 'SEND') {
      const change = open.get(`${event.type[0]}${event.id}`)
      assert(change !== undefined, 'what ends has begun')
      change.end = time
    }
  }
  return found
}

/** What strace has seen of the file: calls may be told of in two lines, their beginning and their end. */
function traced(text: string, path: string): Change[] {
  const open = new Map<string, Change>()
  const found: Change[] = []
  for (const [time, line] of text.split('\n').entries()) {
    const resumed = /^(?<thread>\d+) +<\.\.\. (?<name>\w+) resumed>/.exec(line)?.groups
    if (resumed !== undefined) {
      const change = open.get(`${resumed['thread']} ${resumed['name']}`)
      if (change !== undefined) change.end = time
      open.delete(`${resumed['thread']} ${resumed['name']}`)
      continue
    }
    const call = /^(?<thread>\d+) +(?<name>\w+)\((?<rest>.*)$/.exec(line)?.groups
    if (call === undefined || !line.includes(`<${path}>`)) continue
    const { thread = '', name = '', rest = '' } = call
    const change: Change = { what: described(name, rest), begin: time, end: time }
    found.push(change)
    if (!line.includes('<unfinished')) continue
    change.end = Number.POSITIVE_INFINITY
    open.set(`${thread} ${name}`, change)
  }
  return found
}

function described(name: string, rest: string): string {
  const args = rest.replace(/ <unfinished.*$/, '').replace(/\)\s*=.*$/, '')
  const numbers = args.split(', ').slice(-2).map(Number)
  const [one, other] = [numbers[0] ?? NaN, numbers[1] ?? NaN]
  switch (name) {
    case 'pwrite64':
      return `write ${other}+${one}`
    case 'pwritev': {
      const length = [...args.matchAll(/iov_len=(\d+)/g)].reduce((sum, match) => sum + Number(match[1]), 0)
      return `write ${other}+${length}`
    }
    case 'fdatasync':
      return 'sync'
    case 'ftruncate':
      return `truncate ${other}+0`
    case 'fallocate': {
      const kind = args.includes('PUNCH_HOLE') ? 'punch' : args.includes('ZERO_RANGE') ? 'zero' : 'allocate'
      return `${kind} ${one}+${other}`
    }
    default:
      return name
  }
}

for (const direct of [false, true]) {
  test.serial(`the addon's log agrees with strace: ${direct ? 'O_DIRECT' : 'page cache'}`, async (t) => {
    if (!canTrace) {
      t.log('skipped: needs strace, and no preloaded sanitiser')
      t.pass()
      return
    }
    const folder = await makeFolder(t)
    const [path, log, trace] = ['file', 'log', 'trace'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ]
    const seed = seedOfRun() % 2 ** 20
    const calls = 'trace=pwrite64,pwritev,pwritev2,fdatasync,fsync,fallocate,ftruncate'
    const around = ['strace', '-f', '-y', '-v', '-s', '0', '-o', trace, '-e', calls]
    const program = new URL('./log-work.js', import.meta.url)
    const { code, stderr } = await runProgram(program, [path, String(direct), String(seed), log], { around })
    t.is(code, 0, stderr)
    const ours = logged(JSON.parse(await readFile(log, 'utf8')) as DeviceEvent[])
    // What made the file is not of the addon.
    const theirs = traced(await readFile(trace, 'utf8'), path).filter(({ what }) => what !== 'write NaN+0')
    const names = (changes: readonly Change[]): string[] => changes.map(({ what }) => what).sort()
    t.deepEqual(names(ours), names(theirs), `seed ${seed}`)
    t.true(ours.length > 30)

    // Equal ones follow each other in both: what the log says to be over before something else begins is over for the kernel too.
    const match = new Map(ours.map((change) => [change, undefined as Change | undefined]))
    const left = [...theirs]
    for (const change of ours) {
      const index = left.findIndex(({ what }) => what === change.what)
      match.set(change, left.splice(index, 1)[0])
    }
    let pairs = 0
    for (const one of ours) {
      for (const other of ours) {
        if (one.end >= other.begin) continue
        const [first, second] = [match.get(one), match.get(other)]
        assert(first !== undefined && second !== undefined, 'each has its call')
        pairs++
        if (first.end > second.begin)
          t.fail(`${one.what} was not over when ${other.what} began; seed ${seed}`)
      }
    }
    t.true(pairs > 100)
    t.log(`${ours.length} calls, ${pairs} pairs in order; seed ${seed}`)
  })
}
