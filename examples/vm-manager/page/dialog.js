import { element } from './element.js'

const dialog = document.getElementById('dialog')
const [title, fields, problem, cancel, submit] = ['title', 'fields', 'problem', 'cancel', 'do'].map((name) =>
  document.getElementById(`dialog-${name}`),
)

let carryOut

cancel.addEventListener('click', () => dialog.close())
// What had been pressed may be gone by then; the keyboard has to be somewhere.
dialog.addEventListener('close', () => {
  if (document.activeElement === document.body) document.getElementById('disk-name').focus()
})
dialog.querySelector('form').addEventListener('submit', async (event) => {
  event.preventDefault()
  const values = new FormData(event.target)
  problem.textContent = ''
  submit.disabled = true
  try {
    await carryOut(Object.fromEntries(values))
    dialog.close()
  } catch (error) {
    problem.textContent = error.message
  } finally {
    submit.disabled = false
  }
})

/**
 * Ask for something, and do it. What goes wrong is said in the dialog, which stays open then.
 * @param wanted.fields  [{ name, label, ...properties of the input, options? }]
 * @param wanted.text    what is to be known before
 */
export function ask({ heading, text, fields: wanted = [], button, isDangerous = false, run }) {
  title.textContent = heading
  submit.textContent = button
  submit.classList.toggle('danger', isDangerous)
  problem.textContent = ''
  fields.replaceChildren(...(text === undefined ? [] : [element('p', {}, text)]), ...wanted.map(field))
  carryOut = run
  dialog.showModal()
  fields.querySelector('input')?.select?.()
}

function field({ name, label, hint, options, ...properties }) {
  const id = `field-${name}`
  const described = hint === undefined ? {} : { 'aria-describedby': `${id}-hint` }
  const input =
    options === undefined
      ? element('input', {
          id,
          name,
          type: 'text',
          required: true,
          autocomplete: 'off',
          ...properties,
          ...described,
        })
      : element(
          'select',
          { id, name, ...described },
          ...options.map(([value, text]) => element('option', { value }, text)),
        )
  return element(
    'div',
    { className: properties.type === 'checkbox' ? 'field check' : 'field' },
    element('label', { htmlFor: id }, label),
    input,
    ...(hint === undefined ? [] : [element('p', { id: `${id}-hint`, className: 'quiet' }, hint)]),
  )
}
