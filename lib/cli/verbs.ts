import type { Verb } from './verb.js'

/** What the program knows of a verb without loading it. */
export type VerbEntry = {
  /** For the list of --help. */
  readonly summary: string
  /** What follows the verb's name. */
  readonly syntax: string
  /** The verb is loaded when it is called: scripts start this program hundreds of times. */
  readonly load: () => Promise<Verb>
}

export const verbs: Readonly<Record<string, VerbEntry>> = {
  amend: {
    summary: 'change what kind of image an image is',
    syntax: '[-f FORMAT] -o OPTIONS [-t CACHE] [-p] [--json-progress] [-q] [--force] [--image-opts] FILE',
    load: async () => (await import('./verb-amend.js')).amend,
  },
  bench: {
    summary: 'measure how fast requests to a disk are',
    syntax:
      '[-c COUNT] [-d DEPTH] [-s SIZE] [-S STEP] [-o OFFSET] [-w [--pattern=BYTE] [--flush-interval=COUNT] [--no-drain]]\n' +
      '    [-f FORMAT] [-t CACHE] [-i AIO] [-n] [-q] [-U] [--image-opts] FILE',
    load: async () => (await import('./verb-bench.js')).bench,
  },
  bitmap: {
    summary: 'change the persistent dirty bitmaps of an image',
    syntax:
      '(--merge SOURCE | --add | --remove | --clear | --enable | --disable)...\n' +
      '    [-b SOURCE_FILE [-F FORMAT]] [-g GRANULARITY] [--image-opts | -f FORMAT] FILE BITMAP',
    load: async () => (await import('./verb-bitmap.js')).bitmap,
  },
  check: {
    summary: 'look for errors in an image, and repair them',
    syntax:
      '[-f FORMAT] [-r leaks|all] [-q] [--json-progress] [-T CACHE] [-U] [--output=human|json] [--image-opts] FILE',
    load: async () => (await import('./verb-check.js')).check,
  },
  commit: {
    summary: 'write what an image changes into its backing file',
    syntax: '[-f FORMAT] [-b BASE] [-d] [-t CACHE] [-r RATE] [-p] [--json-progress] [-q] [--image-opts] FILE',
    load: async () => (await import('./verb-commit.js')).commit,
  },
  compact: {
    summary: 'make the file of an image as small as what it holds allows',
    syntax: '[-f FORMAT] [-p] [--json-progress] [-q] [--output=human|json] [--image-opts] FILE',
    load: async () => (await import('./verb-compact.js')).compact,
  },
  compare: {
    summary: 'tell whether two images hold the same',
    syntax:
      '[-f FORMAT] [-F FORMAT] [-s] [-p] [--json-progress] [-q] [-T CACHE] [-U] [--image-opts] FILE1 FILE2',
    load: async () => (await import('./verb-compare.js')).compare,
  },
  convert: {
    summary: 'copy an image into another format',
    syntax:
      '[-f FORMAT] [-O FORMAT] [-c] [-o OPTIONS] [-B BACKING_FILE [-F FORMAT]] [-n [--target-is-zero]] [-l SNAPSHOT]\n' +
      '    [-S SIZE] [--bitmaps [--skip-broken-bitmaps]] [-p] [--json-progress] [-q] [-t CACHE] [-T CACHE] [-m COUNT] [-r RATE] [-W] [-U]\n    [--image-opts] FILE... TARGET',
    load: async () => (await import('./verb-convert.js')).convert,
  },
  create: {
    summary: 'create an empty image',
    syntax: '[-f FORMAT] [-b BACKING_FILE -F FORMAT [-u]] [-o OPTIONS] [-q] [--json-progress] FILE [SIZE]',
    load: async () => (await import('./verb-create.js')).create,
  },
  dd: {
    summary: 'copy a part of a disk into a new image',
    syntax:
      '[-f FORMAT] [-O FORMAT] [-U] [--json-progress] [--image-opts] if=FILE of=TARGET [bs=SIZE] [count=BLOCKS] [skip=BLOCKS]',
    load: async () => (await import('./verb-dd.js')).dd,
  },
  info: {
    summary: 'describe an image',
    syntax: '[-f FORMAT] [--output=human|json] [--backing-chain] [-U] [--image-opts] FILE',
    load: async () => (await import('./verb-info.js')).info,
  },
  inspect: {
    summary: 'show what stands where in the file of an image',
    syntax: '[--limit=COUNT] [--output=human|json] [-U] [--image-opts] FILE',
    load: async () => (await import('./verb-inspect.js')).inspect,
  },
  map: {
    summary: 'list what is where in an image',
    syntax:
      '[-f FORMAT] [-s OFFSET] [-l LENGTH] [--output=human|json | --svg=TARGET] [-U] [--image-opts] FILE',
    load: async () => (await import('./verb-map.js')).map,
  },
  measure: {
    summary: 'tell how large an image would become',
    syntax:
      '[-O FORMAT] [-o OPTIONS] [--output=human|json] --size SIZE\n' +
      '    or: [-O FORMAT] [-o OPTIONS] [--output=human|json] [-f FORMAT] [-l SNAPSHOT] [-U] [--image-opts] FILE',
    load: async () => (await import('./verb-measure.js')).measure,
  },
  rebase: {
    summary: 'put an image on another backing file, or on none',
    syntax:
      '[-f FORMAT] [-u] -b BACKING_FILE [-F FORMAT] [-t CACHE] [-T CACHE] [-p] [--json-progress] [-q] [-U] [--image-opts] FILE',
    load: async () => (await import('./verb-rebase.js')).rebase,
  },
  resize: {
    summary: "change the size of the guest's disk",
    syntax:
      '[-f FORMAT] [--shrink] [--preallocation=MODE] [-q] [--json-progress] [--image-opts] FILE [+|-]SIZE',
    load: async () => (await import('./verb-resize.js')).resize,
  },
  snapshot: {
    summary: 'list, make, apply or delete a snapshot inside an image',
    syntax: '[-U] [-q] [--json-progress] [-l | -c NAME | -a NAME | -d NAME] [--image-opts] FILE',
    load: async () => (await import('./verb-snapshot.js')).snapshot,
  },
}
