import tseslint from 'typescript-eslint'

/**
 * What the compiler does not see: promises that nobody owns, `any`, assertions that do nothing. Layout is prettier's job;
 * the import graph, file sizes and words are held by test/tidy.test.ts.
 */
export default tseslint.config({
  files: ['lib/**/*.ts', 'test/**/*.ts'],
  extends: [tseslint.configs.strictTypeChecked],
  languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
  linterOptions: { reportUnusedDisableDirectives: 'error' },
  rules: {
    // `() => done()` says what it does; a value that is void and used is still an error elsewhere.
    '@typescript-eslint/no-confusing-void-expression': [
      'error',
      { ignoreArrowShorthand: true, ignoreVoidReturningFunctions: true },
    ],
    '@typescript-eslint/no-unused-vars': ['error', { varsIgnorePattern: '^_', argsIgnorePattern: '^_' }],
    '@typescript-eslint/restrict-template-expressions': [
      'error',
      { allowNumber: true, allowBoolean: true, allowNever: true },
    ],
    // What is caught may be thrown on as it is.
    '@typescript-eslint/only-throw-error': ['error', { allowThrowingUnknown: true }],
    '@typescript-eslint/prefer-promise-reject-errors': ['error', { allowThrowingUnknown: true }],
    // At the public edge, and where a file is decoded, things are checked that the types already promise.
    '@typescript-eslint/no-unnecessary-condition': 'off',
    // A rejection in place of an exception is what `async` is for where an interface returns promises.
    '@typescript-eslint/require-await': 'off',
    // Node's rejections are typed as what they are, ErrnoException.
    '@typescript-eslint/use-unknown-in-catch-callback-variable': 'off',
  },
})
