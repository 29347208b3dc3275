import type { Args } from './cli-cases.js'
import { passphrase } from './encrypted.js'

/** Of luks.qcow2 and aes.qcow2 of makeFixtures. A word may hold a blank, so that there are no lines here. */
const secret: Args = ['--object', `secret,id=s0,data=${passphrase}`]
const opened = (name: string): Args => [
  ...secret,
  '--image-opts',
  `driver=qcow2,file.filename=${name},encrypt.key-secret=s0`,
]
const luks = 'encrypt.format=luks'

const two: Args = ['--object', 'secret,id=s2,data=two']
const amend = (settings: string, name = opened('luks.qcow2')): Args => [
  'amend',
  ...two,
  ...name,
  '-o',
  settings,
]
const [active, inactive] = ['encrypt.state=active', 'encrypt.state=inactive']

/** Commands on encrypted images that change nothing. */
export const encryptionReadingCases: readonly Args[] = [
  ...['luks.qcow2', 'aes.qcow2'].flatMap((name): Args[] => [
    ['info', name],
    ['info', '--output=json', name],
    ['map', name],
    ['compare', name, 'data.qcow2'],
    ['snapshot', '-l', name],
    ['measure', '-O', 'qcow2', name],
    ['convert', '-O', 'raw', name, 'never.raw'],
    ['map', ...opened(name)],
    ['map', '--output=json', ...opened(name)],
    ['check', ...opened(name)],
    ['measure', '-O', 'qcow2', ...opened(name)],
    ['snapshot', '-l', ...opened(name)],
  ]),
  ...[
    active,
    `${active},encrypt.new-secret=s2,encrypt.keyslot=5`,
    `${active},encrypt.new-secret=s9`,
    `${active},encrypt.new-secret=s2,encrypt.keyslot=8`,
    `${active},encrypt.new-secret=s2,encrypt.old-secret=s2`,
    inactive,
    `${inactive},encrypt.old-secret=s9`,
    `${inactive},encrypt.keyslot=3`,
    `${inactive},encrypt.keyslot=9`,
    `${inactive},encrypt.keyslot=0,encrypt.old-secret=s2`,
    `${inactive},encrypt.keyslot=5,encrypt.iter-time=10`,
    `${inactive},encrypt.keyslot=5,encrypt.new-secret=s2`,
    'encrypt.new-secret=s2',
    'encrypt.state=foo',
    'encrypt.keyslot=1',
  ].map((settings) => amend(settings)),
  amend(`${active},encrypt.new-secret=s2`, ['data.qcow2']),
  amend(`${active},encrypt.new-secret=s2`, ['luks.qcow2']),
  ['measure', '-O', 'qcow2', '-o', luks, '--size', '1G'],
  ['measure', '-O', 'qcow2', '-o', `${luks},encrypt.key-secret=s0`, '--size', '1G'],
  ...[
    'secret,id=s0',
    'secret,id=s0,data=a,file=b',
    'secret,id=s0,data=a,foo=b',
    'secret,id=s0,file=nowhere',
  ].map((object): Args => ['info', '--object', object, 'luks.qcow2']),
  ['info', '--object', 'secret,id=s0,data=a,format=hex', 'luks.qcow2'],
  ['info', '--object', 'secret,id=s0,data=a.b,format=base64', 'luks.qcow2'],
  ['info', ...secret, ...secret, 'luks.qcow2'],
]

/** Commands that write, with encrypted images. Those that make a key are not among them: the stock tool takes seconds for one. */
export const encryptionWritingCases: readonly (readonly Args[])[] = [
  [amend(`${inactive},encrypt.old-secret=s2`)],
  [amend(`${inactive},encrypt.keyslot=5`)],
  [
    amend(`${inactive},encrypt.keyslot=5`),
    amend(`${inactive},encrypt.keyslot=0`),
    amend(`${inactive},encrypt.old-secret=s0`),
  ],
  [
    ['resize', ...opened('luks.qcow2'), '8M'],
    ['convert', ...opened('luks.qcow2'), '-O', 'raw', 'new.raw'],
    ['convert', ...opened('aes.qcow2'), '-O', 'raw', 'newer.raw'],
    ['create', '-f', 'qcow2', '-b', 'luks.qcow2', '-F', 'qcow2', 'new.qcow2'],
  ],
  [
    ['resize', 'luks.qcow2', '8M'],
    ['commit', 'luks.qcow2'],
    ['rebase', '-u', '-b', '', 'luks.qcow2'],
    ['snapshot', '-c', 'x', 'luks.qcow2'],
    [
      'convert',
      ...secret,
      '-c',
      '-O',
      'qcow2',
      '-o',
      `${luks},encrypt.key-secret=s0`,
      'data.qcow2',
      'new.qcow2',
    ],
    ['create', '-f', 'qcow2', '-o', luks, 'new.qcow2', '1M'],
    ['create', '-f', 'qcow2', '-o', `${luks},encrypt.key-secret=s9`, 'new.qcow2', '1M'],
    ['create', ...secret, '-f', 'qcow2', '-o', 'encrypt.format=foo,encrypt.key-secret=s0', 'new.qcow2', '1M'],
    ['create', ...secret, '-f', 'qcow2', '-o', 'encrypt.key-secret=s0', 'new.qcow2', '1M'],
    ...['cipher-alg', 'cipher-mode', 'ivgen-alg', 'hash-alg', 'iter-time'].map((key): Args => {
      const options = `${luks},encrypt.key-secret=s0,encrypt.${key}=foo`
      return ['create', ...secret, '-f', 'qcow2', '-o', options, 'new.qcow2', '1M']
    }),
  ],
]
