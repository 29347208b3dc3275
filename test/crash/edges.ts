/** A short workload all of whose crash states are looked at, and the mutants that it finds out. */
export type EdgeScenario = { readonly workload: string; readonly mutants: readonly string[] }

/**
 * The edges of the format's rules (docs/ordering.md), each with what goes through it. Names of workloads are as they are replayed: start
 * image, cluster size, operations, most of them at once, order of the device, setting.
 */
export const edges: Readonly<Record<string, readonly EdgeScenario[]>> = {
  E1: [
    { workload: 'sequence/near-block/512/write,write,flush/1/0|flush,exact', mutants: ['M1'] },
    { workload: 'sequence/half-full/512/write,flush,write,flush/2/3|flush,exact', mutants: ['M2'] },
    { workload: 'sequence/half-full/512/write,write,flush/2/3|flush,exact', mutants: ['R3'] },
    {
      workload: 'sequence/snapshot/512/write,flush,write,flush,write,write,flush/2/7|flush,reserves',
      mutants: ['R1'],
    },
    { workload: 'sequence/near-block/512/write,write,write,flush/2/932|flush,reserves', mutants: ['R2'] },
    {
      workload:
        'sequence/half-full+fresh/512/overwrite,flush,write,flush,write,flush/1/0|flush,reserves,zeros',
      mutants: ['R6'],
    },
    {
      workload:
        'sequence/half-full+fresh/4096/overwrite,overwrite,flush,flush,write,flush,flush,write,write-two,flush,flush/2/0|flush,reserves,zeros',
      mutants: ['R6'],
    },
    {
      workload:
        'sequence/backing+fresh/4096/overwrite,flush,flush,write,flush,far,write,flush/2/0|flush,reserves,zeros',
      mutants: ['R6'],
    },
    { workload: 'sequence/empty/512/write,write-fua/1/0|flush,exact', mutants: ['M26'] },
    {
      workload: 'sequence/encrypted+fresh/4096/write,flush,partial-new,flush/1/0|flush,reserves',
      mutants: ['M2', 'E1 encrypted', 'encrypted zeros'],
    },
  ],
  E2: [
    { workload: 'sequence/snapshot/512/write-two,flush/1/0|flush,exact', mutants: ['M5 and M6'] },
    { workload: 'sequence/snapshot/4096/write,flush,partial,flush/2/5|flush,exact', mutants: ['M3'] },
    {
      workload:
        'sequence/backing+fresh/4096/write,flush,overwrite,flush,compress-over,write/1/0|flush,reserves',
      mutants: ['R4'],
    },
  ],
  E3: [{ workload: 'sequence/backing/4096/write,flush,partial-new,flush/2/3|flush,exact', mutants: ['M3'] }],
  E4: [
    { workload: 'sequence/extended/32768/sub,flush/1/0|flush,exact', mutants: ['E4', 'E4 in place'] },
    {
      workload: 'sequence/extended-backing/32768/sub,flush,sub,flush/2/3|flush,exact',
      mutants: ['E4', 'E4 copied'],
    },
    {
      workload: 'sequence/extended-backing+fresh/32768/sub,sub-over,flush,partial,flush/1/0|flush,reserves',
      mutants: ['E4', 'E4 neighbour'],
    },
    {
      workload: 'sequence/extended-snapshot/32768/write,flush,sub-over,flush/1/0|flush,reserves',
      mutants: ['M2', 'M5 and M6'],
    },
  ],
  E5: [
    { workload: 'sequence/near-block/512/write,flush,far,flush/1/0|flush,exact', mutants: ['E5'] },
    { workload: 'sequence/snapshot/512/write,flush,far,flush/2/9|flush,exact', mutants: ['M7'] },
  ],
  E6: [{ workload: 'sequence/snapshot/512/overwrite,flush/1/0|flush,exact', mutants: ['E6'] }],
  E7: [
    { workload: 'sequence/near-block/512/write,write/1/0|flush,exact', mutants: ['E7', 'M8'] },
    { workload: 'sequence/near-block/512/write,write,far,flush/1/0|flush,reserves', mutants: ['R5'] },
  ],
  E8: [{ workload: 'sequence/near-block/512/write,flush,write,flush/2/2|flush,exact', mutants: ['E8'] }],
  E9: [
    { workload: 'sequence/near-table/512/write,write/1/0|flush,exact', mutants: ['M9'] },
    { workload: 'sequence/near-table/512/write,write,flush/1/0|flush,exact', mutants: ['M11'] },
  ],
  E10: [
    { workload: 'sequence/half-full/512/grow-l1/1/0|flush,exact', mutants: ['M10'] },
    {
      workload: 'sequence/backing/4096/grow-filled,grow-l1,compress-over/1/0|flush,exact',
      mutants: ['M11'],
    },
  ],
  E11: [
    {
      workload: 'sequence/half-full/512/snapshot-create,overwrite,flush/1/0|flush,exact',
      mutants: ['M12', 'M14'],
    },
    { workload: 'sequence/empty/512/write,snapshot-create,write/1/0|flush,exact', mutants: ['M13'] },
    {
      workload: 'sequence/snapshot/512/overwrite,snapshot-create,write,flush/1/0|flush,exact',
      mutants: ['E11', 'M12', 'M13', 'M14'],
    },
    {
      workload: 'sequence/backing/4096/compress,snapshot-create,partial,flush/2/3|flush,reserves',
      mutants: ['M12', 'M13'],
    },
  ],
  E12: [
    {
      workload: 'sequence/snapshot/512/snapshot-delete,overwrite,flush/1/0|flush,exact',
      mutants: ['E12', 'E12 flags'],
    },
    {
      workload: 'sequence/snapshot/4096/overwrite,snapshot-delete,write/2/3|flush,reserves',
      mutants: ['E12', 'E12 flags'],
    },
    {
      workload: 'sequence/snapshot/512/snapshot-create,snapshot-delete,flush/1/0|flush,exact',
      mutants: ['M12', 'E12'],
    },
  ],
  E13: [
    {
      workload: 'sequence/snapshot/512/overwrite,snapshot-apply,overwrite,flush/1/0|flush,exact',
      mutants: ['E13', 'E13 counts', 'E13 frees', 'W5'],
    },
    {
      workload: 'sequence/snapshot/4096/grow,partial,snapshot-apply,write/1/0|flush,exact',
      mutants: ['E13', 'E13 counts', 'E13 frees', 'W5'],
    },
    {
      workload: 'sequence/snapshot/512/overwrite,far,snapshot-apply/2/5|flush,reserves',
      mutants: ['E13', 'E13 frees'],
    },
  ],
  E14: [
    { workload: 'sequence/half-full/512/write,discard,flush/1/0|flush,exact', mutants: ['M5'] },
    { workload: 'sequence/half-full/512/write,discard,write,flush/1/0|flush,exact', mutants: ['M6'] },
    { workload: 'sequence/snapshot/512/discard,flush/1/0|flush,exact', mutants: ['M23'] },
  ],
  E15: [
    {
      workload: 'sequence/half-full/512/zero,flush,far,overwrite,flush/1/0|flush,exact',
      mutants: ['M20'],
    },
  ],
  E16: [
    { workload: 'sequence/half-full/512/zero,flush,overwrite,flush/1/0|flush,exact', mutants: ['P11'] },
    {
      workload: 'sequence/extended/32768/sub-on-zero,flush,sub-over,flush/2/3|flush,exact',
      mutants: ['E4', 'E16 zeros', 'P11'],
    },
    {
      workload: 'sequence/extended+fresh/32768/sub,sub-zero,flush,sub-again,flush/1/0|flush,exact',
      mutants: ['E4', 'E16 zeros', 'P11'],
    },
  ],
  E17: [
    {
      workload: 'sequence/empty/512/compress,flush,compress,flush/2/1|flush,exact',
      mutants: ['E17 shared'],
    },
    { workload: 'sequence/half-full/512/compress,compress,flush/2/6|flush,exact', mutants: ['E17'] },
    {
      workload: 'sequence/half-full/512/compress,flush,compress-over,flush/2/3|flush,exact',
      mutants: ['M4'],
    },
  ],
  E18: [
    {
      workload: 'sequence/half-full/512/write,discard,write,flush/3/12|flush,exact,lazy',
      mutants: ['M16'],
    },
    {
      workload: 'sequence/half-full/512/write,flush,discard,write,flush,write,flush/2/2|flush,exact,lazy',
      mutants: ['M15'],
    },
  ],
  E19: [
    { workload: 'sequence/autoclear/512/discard,flush/1/0|flush,exact', mutants: ['E19'] },
    {
      workload: 'sequence/bitmaps/512/write,overwrite,flush/1/0|flush,exact',
      mutants: ['E19 late', 'E19 never', 'unmarked write'],
    },
    {
      workload: 'sequence/bitmaps/4096/discard,flush,zero,compress-over/2/3|flush,reserves',
      mutants: ['E19 late', 'E19 never'],
    },
    { workload: 'sequence/bitmaps/512/grow-l1,discard,shrink/1/0|flush,exact', mutants: ['E19 resize'] },
  ],
  E20: [
    {
      workload: 'sequence/bitmaps/512/overwrite,bitmap-add,write,flush/1/0|flush,exact',
      mutants: ['E20', 'E20 counts', 'E20 frees'],
    },
    {
      workload:
        'sequence/bitmaps/4096/bitmap-add,partial,bitmap-toggle,write,bitmap-clear/2/3|flush,reserves',
      mutants: ['E20', 'E20 counts', 'E20 frees'],
    },
    { workload: 'sequence/bitmaps/512/write,discard/1/0|flush,exact', mutants: ['E20', 'unmarked discard'] },
  ],
  E21: [{ workload: 'sequence/half-full/4096/shrink,grow/1/0|flush,exact', mutants: ['E21'] }],
  E22: [
    { workload: 'sequence/half-full/512/shrink,flush/1/0|flush,exact', mutants: ['E22'] },
    { workload: 'sequence/half-full/512/shrink/1/0|flush,exact', mutants: ['M24'] },
  ],
  E23: [
    { workload: 'sequence/half-full/4096/rename,rename,rename/1/0|flush,exact', mutants: ['M25'] },
    { workload: 'sequence/version-2/4096/write,rename,overwrite,rename/2/3|flush,exact', mutants: ['M25'] },
    { workload: 'sequence/backing/4096/write,rename,flush,rename/2/5|flush,exact', mutants: ['M25'] },
  ],
}

/** Edges that no request of a guest goes through, and the tests that enumerate them. */
export const elsewhere: Readonly<Record<string, string>> = {
  E24: 'encrypted-creation.test.ts',
  E25: 'compaction.test.ts',
  E26: 'amendment.test.ts',
}

export const allEdges = Array.from({ length: 26 }, (_, index) => `E${index + 1}`)
