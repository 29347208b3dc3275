const comparedWithStockTool =
  'test/oracle/command-line.test.ts compares its output and exit codes with qemu-img'

const bitmapsWithStockTool =
  'test/oracle/bitmaps.test.ts compares output, exit codes and what is left with qemu-img'
const optionsOfEncryption =
  'qcow2/encryption.test.ts and operations/create.test.ts give what is wrong with them'
const keySlots = 'properties/encryption-power-cut.test.ts and image/disk-encryption.test.ts change slots'
const modesOfLuks = 'luks/sector-cipher.test.ts compares every mode with node:crypto’s own'
const namesOfLuks = 'luks/header.test.ts, and test/oracle/encryption.test.ts with what the stock tool writes'
const compactions =
  'qcow2/compact.test.ts and test/crash/compaction.test.ts run all of it, and leave out each barrier'

const inspections =
  'operations/inspect.test.ts compares every range with the bytes of images of the stock tool; fuzz/inspect.test.ts'

/**
 * Files of lib that have code and no test file of their own name, and what tests them instead.
 * test/tidy.test.ts holds this list: a file that is in it and has a test is an error too.
 */
export const untestedFiles: Readonly<Record<string, string>> = {
  'base/units.ts': 'brands and two constants: the compiler is its test',
  'cli/usage-error.ts':
    'two classes without behaviour; command-line.test.ts and main.test.ts see them thrown and printed',
  'cli/verb-amend.ts': comparedWithStockTool,
  'cli/verb-bitmap.ts': bitmapsWithStockTool,
  'cli/verb-commit.ts': comparedWithStockTool,
  'cli/verb-compare.ts': comparedWithStockTool,
  'cli/verb-create.ts': comparedWithStockTool,
  'cli/verb-bench.ts': comparedWithStockTool,
  'cli/verb-dd.ts': comparedWithStockTool,
  'cli/verb-info.ts': comparedWithStockTool,
  'cli/verb-map.ts': comparedWithStockTool,
  'cli/verb-measure.ts': comparedWithStockTool,
  'cli/verb-rebase.ts': comparedWithStockTool,
  'cli/verb-resize.ts': comparedWithStockTool,
  'cli/verb-snapshot.ts': comparedWithStockTool,
  'cli/verb.ts': 'what all verbs share; every verb goes through it',
  'cli/verbs.ts': 'a table; help.test.ts walks it, and main.test.ts loads by it',
  'operations/copy-bitmaps.ts': bitmapsWithStockTool,
  'qcow2/bitmap-changes.ts': 'bitmaps.test.ts makes and refuses each kind of change',
  'qcow2/bitmap-cut.ts':
    'bitmaps.test.ts and the sequences of test/oracle/bitmaps.test.ts read all they compare through it',
  'qcow2/bitmap-state.ts': 'bitmaps.test.ts; resizing in the sequences of test/oracle/bitmaps.test.ts',
  'qcow2/bitmap-store.ts':
    'bitmaps.test.ts fails it at each request of the device; test/crash cuts the power',
  'cli/encrypt-settings.ts': 'create-options.test.ts and the comparisons with the stock tool go through it',
  'cli/encrypt-report.ts': comparedWithStockTool,
  'image/new-encryption.ts':
    'every encrypted image that operations/create.test.ts and image/overlay.test.ts make goes through it',
  'index.ts': 'test/package/package.test.ts imports and requires it from the tarball',
  'luks/algorithms.ts': namesOfLuks,
  'luks/block-cipher.ts': modesOfLuks,
  'luks/chained-modes.ts': modesOfLuks,
  'luks/sector-iv.ts': modesOfLuks,
  'luks/names.ts': namesOfLuks,
  'luks/spec.ts': namesOfLuks,
  'luks/words.ts': modesOfLuks,
  'luks/xts.ts': modesOfLuks,
  'qcow2/mapping.ts':
    'image.test.ts looks at every kind, test/oracle/map.test.ts compares them with the stock tool',
  'cli/amend-encrypt.ts': comparedWithStockTool,
  'image/encrypt-option.ts': optionsOfEncryption,
  'image/encryption-option.ts': optionsOfEncryption,
  'qcow2/key-slot-ordering.ts': keySlots,
  'qcow2/key-slots.ts': keySlots,
  'operations/amend-encryption.ts': comparedWithStockTool,
  'operations/encrypt-info.ts': comparedWithStockTool,
  'operations/locked-file.ts':
    'operations/check.test.ts and operations/compact.test.ts open everything by it',
  'cli/map-picture.ts': 'operations/draw-map.test.ts writes and refuses by it',
  'operations/map-svg.ts': 'operations/draw-map.test.ts reads all that it draws',
  'cli/inspect-report.ts': 'operations/inspect.test.ts and fuzz/inspect.test.ts print by it',
  'cli/verb-inspect.ts': 'operations/inspect.test.ts runs it',
  'qcow2/inspect.ts': inspections,
  'qcow2/inspect-bitmaps.ts': inspections,
  'qcow2/inspect-header.ts': inspections,
  'qcow2/inspect-luks.ts': inspections,
  'qcow2/inspect-snapshots.ts': inspections,
  'qcow2/inspect-structure.ts': inspections,
  'qcow2/inspect-tables.ts': inspections,
  'qcow2/inspect-words.ts': inspections,
  'qcow2/compact-counts.ts': compactions,
  'qcow2/compact-map.ts': 'qcow2/compact-plan.test.ts plans on such maps',
  'qcow2/compact-moves.ts': compactions,
  'qcow2/compact-ordering.ts': compactions,
  'qcow2/compact-pointers.ts': compactions,
}
