import type { Mutant } from './mutant.js'
import { without } from './mutant-tools.js'

/** Those that lack a rule of the header's strings. In clusters of 512 bytes the whole header is one sector. */
export const headerMutants: readonly Mutant[] = [
  {
    name: 'M25',
    lacks: 'strings behind the first sector -> the sector that points to them',
    starts: ['half-full', 'empty', 'backing', 'version-2'],
    clusterSizes: [4096],
    needs: ['rename', 'rename'],
    install: without('replaceStrings', 'barrier'),
  },
]
