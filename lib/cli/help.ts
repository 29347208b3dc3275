import { readFileSync } from 'node:fs'
import { print } from './output.js'
import { hint, report, type VerbContext } from './verb.js'
import { type VerbEntry, verbs } from './verbs.js'

/**
 * The command line names no verb that there is: it asks for help or for the version, or is wrong.
 * @returns the exit code
 */
export function answerWithoutVerb(word: string | undefined, context: VerbContext): number {
  if (word === '--help' || word === '-h') {
    print(programHelp(context))
    return 0
  }
  if (word === '--version' || word === '-V') {
    print(`${versionLine(context)}\n`)
    return 0
  }
  for (const message of whatIsWrong(word)) report(context, message)
  hint(context)
  return 1
}

function whatIsWrong(word: string | undefined): string[] {
  if (word === undefined) return ['Not enough arguments']
  if (word.startsWith('-')) return [`unrecognized option '${word}'`]
  const meant = Object.keys(verbs).find((name) => isNear(word, name))
  return [`Command not found: ${word}`, ...(meant === undefined ? [] : [`Did you mean '${meant}'?`])]
}

/** One letter wrong, missing, too many, or two changed about; or the beginning of a verb. */
export function isNear(word: string, name: string): boolean {
  if (word.length >= 2 && name.startsWith(word)) return true
  let start = 0
  while (start < word.length && word[start] === name[start]) start++
  const [restOfWord, restOfName] = [word.slice(start), name.slice(start)]
  return (
    restOfWord.slice(1) === restOfName.slice(1) ||
    restOfWord.slice(1) === restOfName ||
    restOfWord === restOfName.slice(1) ||
    (restOfWord.length > 1 && `${restOfWord[1]}${restOfWord[0]}${restOfWord.slice(2)}` === restOfName)
  )
}

function versionLine({ program }: VerbContext): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')
  const { name, version } = JSON.parse(text) as { name: string; version: string }
  return `${program} version ${version}${program === name ? '' : ` (npm package ${name})`}`
}

function programHelp(context: VerbContext): string {
  const list = Object.entries(verbs).map(([name, { summary }]) => `  ${name.padEnd(10)} ${summary}`)
  return `${versionLine(context)}
Disk images for virtual machines. Verbs, options and output are those of qemu-img.

usage: ${context.program} VERB [OPTIONS] ...
       ${context.program} VERB --help

${list.join('\n')}

  -h, --help     this text
  -V, --version  the version

Sizes are in bytes, or with one of the suffixes k, M, G, T, P and E (powers of 1024).
Formats are qcow2 and raw. Images are named by a path, file:PATH, json:{...}, or with --image-opts
by an option list as in driver=qcow2,file.filename=PATH.
`
}

/** What the letters of a syntax line stand for, each once, for all verbs. */
const meanings: Readonly<Record<string, string>> = {
  '-f': 'format of the image (of the source, of the first image); found out if it is not given',
  '-F': 'format of the backing file, or of the second image',
  '-b': 'backing file: what an image shows where nothing was written to it; of commit the one that takes the changes; "": none; bitmap: the image of --merge\'s source',
  '-B': 'backing file of the target: only what differs from it is copied',
  '-u': 'do not look at the backing file, which need not exist, nor copy anything',
  '-o': 'properties of the new image, KEY=VALUE,...; -o help lists them',
  '-O': 'format of the target, raw if it is not given',
  '-c': 'convert: compress the target; snapshot: make one',
  '--size': 'bytes of an empty disk, in place of a source',
  '-n': 'write into a target that exists',
  '--target-is-zero': 'the existing target holds nothing but zeros',
  '-S': 'shortest run of zeros that becomes a hole, 4k if it is not given; 0: none does',
  '-m': 'requests on their way at a time, 1 to 16; 8 if it is not given',
  '-W': 'accepted for the sake of scripts: the target is always written out of order',
  '-r': 'check: repair leaks, or everything; convert, commit: copy at most so many bytes a second',
  '-s': 'compare: sizes and allocation must be alike too; map: first byte to look at',
  '-l': 'map: bytes to look at; convert: the snapshot to copy, by its id or name; snapshot: list',
  '-a': 'make the disk what it was in a snapshot',
  '-d': 'snapshot: delete one; commit: leave the image as it is, instead of emptying it',
  '-p': 'show progress',
  '-q': 'print nothing but errors',
  '-t': 'cache mode for the target: none, writeback, writethrough, directsync, unsafe, unsafe-direct',
  '-T': 'cache mode for the source',
  '-U': 'open the image although somebody else uses it; what is read may be inconsistent',
  '--output': 'text for people, or JSON for programs',
  '-g': 'bitmap: bytes of the disk for one bit, for --add',
  '--add': 'bitmap: add one in which nothing is marked',
  '--remove': 'bitmap: remove it',
  '--clear': 'bitmap: nothing is marked in it any more',
  '--enable': 'bitmap: it follows the changes of the disk',
  '--disable': 'bitmap: it stays as it is',
  '--merge': 'bitmap: mark in it what is marked in another one',
  '--bitmaps': 'convert: copy the bitmaps as well',
  '--skip-broken-bitmaps': 'convert: but those that are inconsistent',
  '--svg': 'map: draw a picture of it instead, into this file',
  '--salvage': 'convert: go on where a source cannot be read; zeroes take the place of what is lost',
  '--backing-chain': 'go on with the backing files',
  '--shrink': 'allow the disk to become smaller, which destroys what lay beyond',
  '--preallocation': 'for the room that is added: off, metadata, falloc, full',
  '-i': 'bench: how requests are made: threads, native, io_uring; accepted for the sake of scripts',
  '-w': 'bench: write, instead of reading',
  '--pattern': 'bench: the byte that is written, 0 to 255',
  '--flush-interval': 'bench: a flush behind so many writes',
  '--no-drain': 'bench: do not wait for what is under way before a flush',
  '--force': 'amend: also what may lose the last way into an encrypted image',
  '--limit': 'inspect: list at most so many parts of each table, 1000 if it is not given; others are counted',
  '--image-opts': 'names are option lists',
  '--json-progress': 'report progress as lines of JSON on standard error',
}

/** The help of one verb. @returns the exit code */
export function verbHelp(name: string, { summary, syntax }: VerbEntry, { program }: VerbContext): number {
  const options = Object.entries(meanings).filter(([option]) => mentions(syntax, option))
  const lines = options.map(([option, meaning]) => `  ${option.padEnd(16)} ${meaning}`)
  print(`usage: ${program} ${name} ${syntax}\n\n${summary}\n\n${lines.join('\n')}\n`)
  return 0
}

const mentions = (syntax: string, option: string): boolean =>
  new RegExp(`\\[${option}[\\] =]|^${option} | ${option} `).test(syntax)
