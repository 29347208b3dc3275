import tseslint from 'typescript-eslint'

/**
 * What the compiler does not see: promises that nobody owns, `any`, conditions that are always true. Layout is biome's.
 * The import graph, file sizes and words are held by test/tidy.test.ts.
 */
export default tseslint.config(
  { ignores: ['dist/', 'build/', 'out/', 'node_modules/', 'prebuilds/'] },
  {
    files: ['lib/**/*.ts', 'test/**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
    },
  },
)
