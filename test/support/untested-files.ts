/**
 * Files of lib that have code and no test file of their own name, and what tests them instead.
 * test/tidy.test.ts holds this list: a file that is in it and has a test is an error too.
 */
export const untestedFiles: Readonly<Record<string, string>> = {
  'cli/usage-error.ts':
    'two classes without behaviour; command-line.test.ts and main.test.ts see them thrown and printed',
}
