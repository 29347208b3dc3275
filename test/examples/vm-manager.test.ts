import { existsSync } from 'node:fs'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { compareImages, createImage, openImage } from '../../lib/index.js'
import { axeFindings, axeScript, launchBrowser, type Page } from '../support/browser.js'
import { installExample } from '../support/example.js'
import { SeededRandom } from '../support/seeded-random.js'

const mebibyte = 2 ** 20

type Answer = { readonly value?: unknown; readonly error?: { code?: string; message: string } }
type Told = { readonly type: string; readonly job?: { id: number; state: string; bytesDone: number } }
type Disks = {
  answer(verb: string, argument?: object): Promise<Answer>
  close(): Promise<void>
}
type Disk = {
  name: string
  virtualSize: number
  snapshots: { id: string; title: string }[]
  problem?: string
}

async function makeDisks(t: ExecutionContext): Promise<{ disks: Disks; folder: string; told: Told[] }> {
  const { app, folder } = await installExample(t)
  const told: Told[] = []
  const module = (await import(pathToFileURL(join(app, 'disks.mjs')).href)) as {
    Disks: new (folder: string, send: (message: Told) => void) => Disks
  }
  const disks = new module.Disks(folder, (message) => told.push(message))
  t.teardown(() => disks.close())
  return { disks, folder, told }
}

/** Write so many MiB as a guest would. */
async function writeTo(path: string, count: number, seed: number): Promise<void> {
  const image = await openImage(path)
  const random = new SeededRandom(seed)
  for (let index = 0; index < count; index++) await image.write(random.bytes(mebibyte), index * 4 * mebibyte)
  await image.close()
}

const until = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 10))
}

test('without a window: disks, branches and snapshots are made, listed and restored', async (t) => {
  const { disks, folder, told } = await makeDisks(t)
  t.deepEqual(await disks.answer('create', { name: 'a.qcow2', size: 64 * mebibyte }), { value: undefined })
  await disks.answer('takeSnapshot', { name: 'a.qcow2', title: 'empty' })
  await writeTo(join(folder, 'a.qcow2'), 2, 1)
  t.deepEqual(await disks.answer('applySnapshot', { name: 'a.qcow2', id: '1' }), { value: undefined })
  await createImage(join(folder, 'empty.qcow2'), { size: 64 * mebibyte })
  t.true((await compareImages(join(folder, 'a.qcow2'), join(folder, 'empty.qcow2'))).identical)
  await disks.answer('create', { name: 'b.qcow2', backing: 'a.qcow2' })
  await writeFile(join(folder, 'broken.qcow2'), Buffer.from('QFI\xfb and no more', 'latin1'))

  const { value } = (await disks.answer('list')) as { value: { disks: Disk[] } }
  t.deepEqual(
    value.disks.map(({ name, virtualSize, snapshots }) => [
      name,
      virtualSize,
      snapshots.map(({ title }) => title),
    ]),
    [
      ['a.qcow2', 64 * mebibyte, ['empty']],
      ['b.qcow2', 64 * mebibyte, []],
      ['broken.qcow2', undefined, []],
      ['empty.qcow2', 64 * mebibyte, []],
    ],
  )
  t.truthy(value.disks[2]?.problem)
  t.true(told.some(({ type }) => type === 'changed'))

  const refused = await disks.answer('applySnapshot', { name: 'a.qcow2', id: '1' })
  t.regex(refused.error?.message ?? '', /^b\.qcow2 stands on a\.qcow2/)
})

test('without a window: a conversion tells how far it is, and leaves nothing when it is cancelled', async (t) => {
  const { disks, folder, told } = await makeDisks(t)
  await createImage(join(folder, 'a.qcow2'), { size: 64 * mebibyte })
  await writeTo(join(folder, 'a.qcow2'), 8, 2)
  const order = { source: 'a.qcow2', target: 'b.img', rateLimit: mebibyte }
  const { value } = (await disks.answer('convert', order)) as { value: { id: number } }
  await until(() => told.some(({ job }) => (job?.bytesDone ?? 0) > 0))
  await disks.answer('cancel', { id: value.id })
  await until(() => told.some(({ job }) => job?.state === 'cancelled'))
  t.deepEqual(await readdir(folder), ['a.qcow2'])

  await disks.answer('convert', { source: 'a.qcow2', target: 'b.img' })
  await until(() => told.some(({ job }) => job?.state === 'done'))
  t.true((await compareImages(join(folder, 'a.qcow2'), join(folder, 'b.img'))).identical)
})

test('without a window: the page reaches nothing but disks of the folder', async (t) => {
  const { disks, folder } = await makeDisks(t)
  for (const name of ['../a.qcow2', '/tmp/a.qcow2', 'a/b.qcow2', '.a.qcow2', 'a.txt', 'json:{}.img', 7]) {
    const { error } = await disks.answer('create', { name, size: mebibyte })
    t.regex(error?.message ?? '', /A name begins with/, String(name))
  }
  for (const verb of ['constructor', 'toString', 'remove']) t.truthy((await disks.answer(verb)).error, verb)
  t.deepEqual(await readdir(folder), [])

  // A raw disk is raw, whatever its guest writes: here the header of an image that stands on another.
  await createImage(join(folder, 'secret.qcow2'), { size: mebibyte })
  const image = join(folder, 'guest.img')
  await createImage(image, { backingFile: 'secret.qcow2', backingFormat: 'qcow2' })
  const { value } = (await disks.answer('list')) as { value: { disks: (Disk & { format: string })[] } }
  t.deepEqual(
    value.disks.map(({ name, format }) => [name, format]),
    [
      ['guest.img', 'raw'],
      ['secret.qcow2', 'qcow2'],
    ],
  )
})

/** Chromium alone takes a second; the story goes on in one page. */
test('in a browser: a disk is made, snapshotted, branched, shown, converted and the conversion cancelled', async (t) => {
  t.timeout(5 * 60_000)
  const browser = await launchBrowser()
  if (browser === undefined) {
    t.log('SKIPPED: there is no chromium')
    t.pass()
    return
  }
  t.teardown(() => browser.close())
  const { app, folder } = await installExample(t)
  const { serve } = (await import(pathToFileURL(join(app, 'serve.mjs')).href)) as {
    serve: (folder: string) => Promise<{ address: string; close(): Promise<void> }>
  }
  const served = await serve(folder)
  t.teardown(() => served.close())
  const page = await browser.newPage()
  const complaints: string[] = []
  page.on('console', (message) => complaints.push(message.text()))
  page.on('pageerror', (error) => complaints.push(error.message))
  await page.addInitScript({ content: axeScript() })
  await page.goto(served.address)
  const said = page.getByRole('status')
  await page.getByText('There are no disks yet').waitFor()
  await accessible(t, page)

  // By the keyboard alone.
  await page.getByRole('button', { name: 'New disk…' }).focus()
  await page.keyboard.press('Enter')
  await page.getByLabel('Name').fill('guest.qcow2')
  await page.getByLabel('Size in GiB').fill('0.0625')
  await accessible(t, page)
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: 'guest.qcow2' }).waitFor()
  t.true((await page.locator('#facts').innerText()).includes('64 MiB'))
  await writeTo(join(folder, 'guest.qcow2'), 8, 3)

  // Names are text, whatever is in them.
  const title = '<img src=x onerror=alert(1)>'
  await page.getByRole('button', { name: 'Snapshot…' }).click()
  await page.getByLabel('What it is called').fill(title)
  await page.getByRole('button', { name: 'Take it' }).click()
  await page.getByText(`Snapshot “${title}” is taken.`).waitFor()
  await page.getByRole('button', { name: `Delete snapshot ${title} of guest.qcow2` }).waitFor()

  await page.getByRole('button', { name: 'Branch…' }).click()
  await page.getByRole('button', { name: 'Make it' }).click()
  await page.getByRole('heading', { name: 'guest branch.qcow2' }).waitFor()
  t.deepEqual(
    (await page.locator('.tree .disk > :first-child').allInnerTexts()).map((text) => text.trim()),
    ['guest.qcow2', 'guest branch.qcow2'],
  )
  await page.locator('#tree').getByRole('button', { name: 'guest.qcow2' }).click()
  await page.getByText('deleting it frees').waitFor()
  t.true(await page.getByRole('button', { name: /^Restore snapshot/ }).isDisabled())

  t.true(
    ((await page.evaluate(
      "document.getElementById('map').decode().then(() => document.getElementById('map').naturalWidth)",
    )) as number) > 0,
  )
  await page.getByText('In words').click()
  t.regex(await page.locator('#map-words').innerText(), /A disk of 64 MiB, .*data.*8 MiB/)

  // What goes wrong is said where it was asked for.
  await page.getByRole('button', { name: 'Convert…' }).click()
  await page.getByLabel('Name').fill('guest branch.qcow2')
  await page.getByRole('button', { name: 'Begin' }).click()
  await page.getByText('was not made').waitFor()
  t.regex(await said.innerText(), /guest branch\.qcow2 was not made: .*exists/)

  await page.getByRole('button', { name: 'Convert…' }).click()
  await page.getByLabel('Name').fill('copy.img')
  await page.getByLabel('At most MiB a second').fill('1')
  await page.getByRole('button', { name: 'Begin' }).click()
  await page.getByText(/^[1-9]\d* %, /).waitFor()
  await accessible(t, page)
  await page.getByRole('button', { name: 'Cancel converting guest.qcow2 to copy.img' }).click()
  await page.getByText('Cancelled: nothing is left of copy.img.').waitFor()
  t.false(existsSync(join(folder, 'copy.img')))
  t.false(await page.getByRole('heading', { name: 'At work' }).isVisible())

  await page.getByRole('button', { name: 'Convert…' }).click()
  await page.getByLabel('Name').fill('copy.img')
  await page.getByRole('button', { name: 'Begin' }).click()
  await page.getByText('copy.img is there.').waitFor()
  await page
    .locator('#disks')
    .getByRole('button', { name: /copy\.img/ })
    .click()
  await page.getByRole('heading', { name: 'copy.img' }).waitFor()
  t.true((await compareImages(join(folder, 'guest.qcow2'), join(folder, 'copy.img'))).identical)

  await page
    .locator('#disks')
    .getByRole('button', { name: /^guest\.qcow2/ })
    .click()
  await page.getByRole('button', { name: /^Delete snapshot/ }).click()
  await page.getByRole('button', { name: 'Delete', exact: true }).click()
  await page.getByText(`Snapshot “${title}” is deleted.`).waitFor()
  await page.getByRole('button', { name: /^Delete snapshot/ }).waitFor({ state: 'hidden' })
  // The button is gone; the keyboard is not lost.
  await page.locator('#disk-name:focus').waitFor()

  await page.setViewportSize({ width: 360, height: 740 })
  t.is(await page.evaluate('document.documentElement.scrollWidth'), 360)
  t.deepEqual(complaints, [])
})

/** In the light and in the dark. */
async function accessible(t: ExecutionContext, page: Page): Promise<void> {
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme })
    t.deepEqual(await axeFindings(page), [], colorScheme)
  }
}
