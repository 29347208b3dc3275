/** The command line itself is wrong, or asks for what there is not. Its text is printed as it is, never a stack trace. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  /** Whether the reader is sent to --help. */
  readonly showHelpHint: boolean

  /** @param message  one or more lines, without the program's name and without a newline at the end */
  constructor(message: string, { showHelpHint = false }: { showHelpHint?: boolean } = {}) {
    super(message)
    this.showHelpHint = showHelpHint
  }
}

/** -h or --help stood among a verb's options. */
export class HelpRequest extends Error {
  override readonly name = 'HelpRequest'
}
