const comparedWithStockTool =
  'test/oracle/command-line.test.ts compares its output and exit codes with qemu-img'

/**
 * Files of lib that have code and no test file of their own name, and what tests them instead.
 * test/tidy.test.ts holds this list: a file that is in it and has a test is an error too.
 */
export const untestedFiles: Readonly<Record<string, string>> = {
  'base/units.ts': 'brands and two constants: the compiler is its test',
  'cli/usage-error.ts':
    'two classes without behaviour; command-line.test.ts and main.test.ts see them thrown and printed',
  'cli/verb-amend.ts': comparedWithStockTool,
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
  'index.ts': 'test/package/package.test.ts imports and requires it from the tarball',
}
