#!/usr/bin/env node
import { basename } from 'node:path'
import type { Interruption } from './interrupts.js'
import { type HelpRequest, isCalled, type UsageError } from './usage-error.js'
import { hint, report, type VerbContext } from './verb.js'
import { verbs } from './verbs.js'

/** Exit code of every failure that has no other. */
const failed = 1

/** The name that we were called by, which may be a link's: `qemu-img` for one. */
function programName(): string {
  const name = basename(process.argv[1] ?? '')
  return /^(main\.c?js)?$/.test(name) ? 'qcow2' : name
}

async function main(argv: readonly string[], context: VerbContext): Promise<number> {
  try {
    return await run(argv, context)
  } catch (error) {
    return fail(error, context)
  }
}

/** @returns the exit code */
async function run(argv: readonly string[], context: VerbContext): Promise<number> {
  const [name, ...rest] = argv
  const verb = name !== undefined && Object.hasOwn(verbs, name) ? verbs[name] : undefined
  if (name === undefined || verb === undefined) {
    const { answerWithoutVerb } = await import('./help.js')
    return answerWithoutVerb(name, context)
  }
  try {
    return await (
      await verb.load()
    )(rest, context)
  } catch (error) {
    if (!isCalled<HelpRequest>(error, 'HelpRequest')) throw error
    const { verbHelp } = await import('./help.js')
    return verbHelp(name, verb, context)
  }
}

/** Say what went wrong, without a stack trace. @returns the exit code */
function fail(error: unknown, context: VerbContext): number {
  if (isCalled<Interruption>(error, 'Interruption')) {
    // Whoever started us must see that it was the signal, as a shell's loop does.
    process.kill(process.pid, error.signalName)
    return failed
  }
  if (isCalled<UsageError>(error, 'UsageError')) {
    for (const message of error.messages) report(context, message)
    if (error.showHelpHint) hint(context)
  } else {
    report(context, error instanceof Error ? error.message : String(error))
  }
  return failed
}

void main(process.argv.slice(2), { program: programName() }).then((code) => {
  process.exitCode = code
})
