import type { Args } from './cli-cases.js'

const words = (line: string): Args => line.split(' ').filter((word) => word !== '')

/** `dd`, `bench` and what `measure` says of snapshots, where nothing is written. */
export const blockReadingCases: readonly Args[] = [
  ...[
    '',
    'if=a.raw',
    'frob=1 if=a.raw',
    'if=data.qcow2 of=new bs=0',
    'if=data.qcow2 of=new bs=2147483648',
    'if=data.qcow2 of=new bs=frob',
    'if=data.qcow2 of=new count=-1',
    'if=data.qcow2 of=new skip=18446744073709551615',
    '-O frob if=data.qcow2 of=new',
    '-f frob if=data.qcow2 of=new',
    'if=missing of=new',
    'if=a.raw of=sub/missing/new',
    'if=data.qcow2 of=data.qcow2',
  ].map((line) => ['dd', ...words(line)]),
  words('bench'),
  words('bench a b'),
  words('bench -c 1 missing'),
  ...[
    ...['-c x', '-c 2147483648', '-d x', '-o x', '-s x', '-s 3G', '-S 3G', '--pattern 256', '-i frob', '-n'],
    ...['-t frob', '--flush-interval x', '--flush-interval 2', '-w --flush-interval 2 -d 3', '-U -w'],
    ...['-c 1 -o 5M', '-c 9 -q -s 100k -S 900k -d 3', '-c 0x2 -i threads'],
  ].map((line) => ['bench', ...words(line), 'data.qcow2']),
  ...[
    '-O qcow2 -l second snapshots.qcow2',
    '-l snapshot.id=1 -O qcow2 --output=json snapshots.qcow2',
    '-l nope snapshots.qcow2',
    '-l snapshot.frob=1 --size 1M',
    '-l 1 a.raw',
    '-l 1',
  ].map((line) => ['measure', ...words(line)]),
]

/** And where something is. */
export const blockWritingCases: readonly (readonly Args[])[] = [
  ...[
    'if=data.qcow2 of=new',
    'if=data.qcow2 of=new bs=64k count=3 skip=1',
    'if=data.qcow2 of=new bs=1M skip=4',
    'if=data.qcow2 of=new bs=1M skip=5',
    'if=odd.raw of=new bs=7 count=2',
    '-O raw if=overlay.qcow2 of=new bs=1.5k skip=40',
    '-U -f qcow2 if=data.qcow2 of=new count=0',
    '--image-opts if=driver=qcow2,file.filename=data.qcow2 of=new bs=4k count=1',
  ].map((line) => [['dd', ...words(line)]]),
  // One request at a time: where clusters are put beside a reservation that is being made is a matter of time.
  [words('bench -w -c 5 -d 1 -o 64k -s 512 -S 1k --pattern=3 empty.qcow2')],
  [words('bench -w -c 9 -d 2 --flush-interval 4 -o 4000k -S 100k -f raw a.raw')],
]
