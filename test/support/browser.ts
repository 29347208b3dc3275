import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)

/** What we use of playwright-core. Its own types take those of a browser into the whole project. */
export type Page = {
  goto(address: string): Promise<unknown>
  getByRole(role: string, options?: { name?: string | RegExp; exact?: boolean }): Locator
  getByLabel(text: string | RegExp, options?: { exact?: boolean }): Locator
  getByText(text: string | RegExp, options?: { exact?: boolean }): Locator
  locator(selector: string): Locator
  /** An expression, or the body of a function that takes one argument. */
  evaluate(expression: string): Promise<unknown>
  emulateMedia(options: { colorScheme: 'light' | 'dark' }): Promise<void>
  on(event: 'console', listener: (message: { text(): string }) => void): void
  on(event: 'pageerror', listener: (error: Error) => void): void
  addInitScript(script: { content: string }): Promise<unknown>
  setViewportSize(size: { width: number; height: number }): Promise<void>
  screenshot(options: { path: string; fullPage?: boolean }): Promise<unknown>
  readonly keyboard: { press(key: string): Promise<void> }
}

export type Locator = {
  first(): Locator
  getByRole: Page['getByRole']
  click(): Promise<void>
  focus(): Promise<void>
  fill(text: string): Promise<void>
  isDisabled(): Promise<boolean>
  isVisible(): Promise<boolean>
  innerText(): Promise<string>
  allInnerTexts(): Promise<string[]>
  waitFor(options?: { state: 'visible' | 'hidden' }): Promise<void>
}

export type Browser = { newPage(): Promise<Page>; close(): Promise<void> }

/** Debian's; elsewhere the environment says where one is. */
const program = process.env['QCOW2_CHROMIUM'] ?? '/usr/bin/chromium'

/** @returns undefined if there is no browser */
export async function launchBrowser(): Promise<Browser | undefined> {
  if (!existsSync(program)) return undefined
  const { chromium } = require('playwright-core') as {
    chromium: { launch(options: { executablePath: string; args: string[] }): Promise<Browser> }
  }
  // Root has no sandbox.
  const args = process.getuid?.() === 0 ? ['--no-sandbox'] : []
  return chromium.launch({ executablePath: program, args })
}

/** What axe-core finds wrong with a page: its rules for accessibility. Its script has to be there: `axeScript`. */
export async function axeFindings(page: Page): Promise<readonly string[]> {
  const { violations } = (await page.evaluate('axe.run()')) as {
    violations: readonly { id: string; nodes: readonly { html: string }[] }[]
  }
  return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`))
}

export function axeScript(): string {
  return readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')
}
