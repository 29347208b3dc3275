import test from 'ava'
import { parseCommandLine } from '../../lib/cli/command-line.js'
import { HelpRequest, UsageError } from '../../lib/cli/usage-error.js'

const table = {
  help: { short: 'h', long: 'help', takesValue: false },
  format: { short: 'f', long: 'format', takesValue: true },
  output: { long: 'output', takesValue: true },
  quiet: { short: 'q', takesValue: false },
  progress: { short: 'p', takesValue: false },
  start: { long: 'start-offset', takesValue: true },
} as const

const parse = (...argv: string[]) => parseCommandLine(table, argv)

test('options and operands may stand in any order', (t) => {
  const line = parse('a', '-f', 'raw', 'b', '-q', 'c')
  t.deepEqual(line.operands, ['a', 'b', 'c'])
  t.is(line.value('format'), 'raw')
  t.true(line.has('quiet'))
  t.false(line.has('progress'))
})

for (const argv of [
  ['-fqcow2'],
  ['-f', 'qcow2'],
  ['-qfqcow2'],
  ['-qf', 'qcow2'],
  ['--format', 'qcow2'],
  ['--format=qcow2'],
]) {
  test(`${argv.join(' ')} gives the format qcow2`, (t) => {
    const line = parse(...argv, 'x')
    t.is(line.value('format'), 'qcow2')
    t.deepEqual(line.operands, ['x'])
  })
}

test('a long name may be cut off as long as it is clear', (t) => {
  t.is(parse('--out', 'json').value('output'), 'json')
  t.is(parse('--sta=5').value('start'), '5')
  const two = {
    one: { long: 'image-opts', takesValue: false },
    other: { long: 'image-name', takesValue: false },
  }
  t.throws(() => parseCommandLine(two, ['--image']), {
    instanceOf: UsageError,
    message: "unrecognized option '--image'",
  })
  t.true(parseCommandLine(two, ['--image-o']).has('one'))
})

test('an option given twice keeps all values, and the last one counts', (t) => {
  const line = parse('-f', 'raw', '--format=qcow2')
  t.deepEqual(line.values('format'), ['raw', 'qcow2'])
  t.is(line.value('format'), 'qcow2')
})

test('-- ends the options, and - alone is an operand', (t) => {
  t.deepEqual(parse('-', '-q', '--', '-f', '--output').operands, ['-', '-f', '--output'])
})

test('a value may look like an option', (t) => {
  t.is(parse('-f', '-q').value('format'), '-q')
  t.is(parse('--output', '--help').value('output'), '--help')
})

for (const [argv, message] of [
  [['-x'], "unrecognized option '-x'"],
  [['-qx'], "unrecognized option '-x'"],
  [['--frob'], "unrecognized option '--frob'"],
  [['--help=5'], "unrecognized option '--help=5'"],
  [['-f'], "missing argument for option '-f'"],
  [['-qf'], "missing argument for option '-f'"],
  [['--output'], "missing argument for option '--output'"],
] as const) {
  test(`${argv.join(' ')} is refused, with a hint at --help`, (t) => {
    const error = t.throws(() => parse(...argv), { instanceOf: UsageError, message })
    t.true(error?.showHelpHint)
  })
}

test('help is asked for where it stands: what follows does not matter, what precedes does', (t) => {
  t.throws(() => parse('a', '--help', '--frob'), { instanceOf: HelpRequest })
  t.throws(() => parse('-qh'), { instanceOf: HelpRequest })
  t.throws(() => parse('--frob', '--help'), { instanceOf: UsageError })
})
