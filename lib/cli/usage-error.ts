/** The command line itself is wrong, or asks for what there is not. Its text is printed as it is, never a stack trace. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  /** Each is printed behind the program's name; one may have several lines. */
  readonly messages: readonly string[]
  /** Whether the reader is sent to --help. */
  readonly showHelpHint: boolean

  /** @param message  one, or several; without the program's name and without a newline at the end */
  constructor(
    message: string | readonly string[],
    { showHelpHint = false }: { showHelpHint?: boolean } = {},
  ) {
    const messages = typeof message === 'string' ? [message] : message
    super(messages.join('\n'))
    this.messages = messages
    this.showHelpHint = showHelpHint
  }
}

/** -h or --help stood among a verb's options. */
export class HelpRequest extends Error {
  override readonly name = 'HelpRequest'
}

/**
 * Whether an error is one of these, or an Interruption. By name: as it is shipped, the program and each verb are files of their own,
 * each with these classes in it.
 */
export function isCalled<T extends { readonly name: string }>(error: unknown, name: T['name']): error is T {
  return error instanceof Error && error.name === name
}
