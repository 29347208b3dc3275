import type { Args } from './cli-cases.js'

const words = (line: string): Args => line.split(' ').filter((word) => word !== '')

/** Of which ours says how long it may be. */
export const tooLongName: Args = ['rebase', '-u', '-F', 'raw', '-b', 'x'.repeat(1024), 'overlay.qcow2']

/** `commit` and `rebase` where nothing is written. */
export const chainReadingCases: readonly Args[] = [
  ...[
    'commit',
    'commit a b',
    'commit -x overlay.qcow2',
    'commit -b',
    'commit missing',
    'commit data.qcow2',
    'commit -f raw a.raw',
    'commit a.raw',
    'commit -f raw overlay.qcow2',
    'commit -f frob overlay.qcow2',
    'commit frob:overlay.qcow2',
    'commit -b missing overlay.qcow2',
    'commit -b overlay.qcow2 overlay.qcow2',
    'commit -b data.qcow2 sub/overlay.qcow2',
    'commit -t frob overlay.qcow2',
    'commit -r frob overlay.qcow2',
    'commit -r frob -t frob overlay.qcow2',
    'commit --object secret overlay.qcow2',
    'commit --image-opts -f qcow2 driver=qcow2,file.filename=overlay.qcow2',
    'commit orphan.qcow2',
    'rebase',
    'rebase -b data.qcow2',
    'rebase -b data.qcow2 -F qcow2 a b',
    'rebase overlay.qcow2',
    'rebase -F qcow2 overlay.qcow2',
    'rebase -x -b data.qcow2 overlay.qcow2',
    'rebase -b data.qcow2 -F qcow2 missing',
    'rebase -b data.qcow2 -F frob overlay.qcow2',
    'rebase -u -b data.qcow2 -F frob overlay.qcow2',
    'rebase -t frob -T frob -b data.qcow2 -F qcow2 overlay.qcow2',
    'rebase -T frob -b data.qcow2 -F qcow2 overlay.qcow2',
    'rebase -b missing -F qcow2 overlay.qcow2',
    'rebase -b a.raw -F qcow2 overlay.qcow2',
    'rebase -b overlay.qcow2 -F qcow2 overlay.qcow2',
    'rebase -u -b data.qcow2 overlay.qcow2',
    'rebase -u -b data.qcow2 -F qcow2 a.raw',
    'rebase -b data.qcow2 -F qcow2 -f raw a.raw',
    'rebase -f frob -b data.qcow2 -F qcow2 overlay.qcow2',
    'rebase -b data.qcow2 -F qcow2 orphan.qcow2',
    'rebase -b data.qcow2 -F qcow2 sub/overlay.qcow2',
  ].map(words),
  tooLongName,
  ['commit', '-b', '', 'overlay.qcow2'],
  ['rebase', '-b', '', '-f', 'raw', 'a.raw'],
]

/** Where they write, each list in a fresh copy of the fixtures. */
export const chainWritingCases: readonly (readonly Args[])[] = [
  ...[
    'commit overlay.qcow2',
    'commit -q overlay.qcow2',
    'commit -p overlay.qcow2',
    'commit -q -p -d overlay.qcow2',
    'commit -f qcow2 -t none -r 1G overlay.qcow2',
    'commit -b data.qcow2 overlay.qcow2',
    'commit -b ./data.qcow2 -d overlay.qcow2',
    'commit -b ../data.qcow2 sub/overlay.qcow2',
    'commit --image-opts driver=qcow2,file.filename=overlay.qcow2',
    'rebase -u -b missing -F raw overlay.qcow2',
    'rebase -p -u -b data.qcow2 -F qcow2 orphan.qcow2',
    'rebase -u -F qcow2 overlay.qcow2',
    'rebase -b data.qcow2 -F qcow2 overlay.qcow2',
    'rebase -p -b data.qcow2 -F qcow2 overlay.qcow2',
    'rebase -U -t writeback -T none -b data.qcow2 -F qcow2 overlay.qcow2',
    'rebase -b ../data.qcow2 -F qcow2 sub/overlay.qcow2',
    'rebase -u -b data.qcow2 -F qcow2 version2.qcow2',
    'rebase -u -b a.raw -F raw big.qcow2',
  ].map((line) => [words(line)]),
  [['rebase', '-b', '', 'overlay.qcow2']],
  [['rebase', '-u', '-b', '', 'overlay.qcow2']],
  [
    words('create -q -f qcow2 -b overlay.qcow2 -F qcow2 top.qcow2 5M'),
    words('commit -b data.qcow2 top.qcow2'),
  ],
]
