// A form that adds filters to an address, and the filters that it has, each with a button that removes it.
import { html, useState } from "../lib/html.js"
import { valueFor } from "../lib/rows.js"
import { Field } from "./common.js"

const operators = [
  ["eq", "is"],
  ["ne", "is not"],
  ["gt", "is above"],
  ["gte", "is at least"],
  ["lt", "is below"],
  ["lte", "is at most"],
  ["in", "is one of"],
  ["prefix", "begins with"],
  ["null", "is missing (true or false)"]
]
const textOf = (name, value, prefix) => {
  const own = name.slice(prefix.length)
  const found = operators.find(([operator]) => own.endsWith(`.${operator}`))
  return found === undefined
    ? `${own} is ${value}`
    : `${own.slice(0, -found[0].length - 1)} ${found[1].split(" (")[0]} ${value}`
}

/** `columns`: those to choose from, `{ name, type }`; undefined: any can be typed. `prefix` is before the names in parameters; `set` changes the address. */
export const FilterForm = ({ columns: known, filters, prefix, set }) => {
  const columns = known?.map(({ name }) => name)
  const [typed, setColumn] = useState(columns?.[0] ?? "")
  const [operator, setOperator] = useState("eq")
  const [value, setValue] = useState("")
  const column = columns === undefined || columns.includes(typed) ? typed : columns[0]
  const add = (event) => {
    event.preventDefault()
    const type = known?.find(({ name }) => name === column)?.type ?? ""
    set({ [prefix + column.trim() + (operator === "eq" ? "" : `.${operator}`)]: valueFor(type, operator, value) })
    setValue("")
  }
  return html`<form class="row end" onSubmit=${add}>
      <${Field} label=${columns === undefined ? "Field of the value" : "Column"}
        >${
          columns === undefined
            ? html`<input
                required
                placeholder="amount"
                value=${column}
                onInput=${(event) => setColumn(event.target.value)}
              />`
            : html`<select value=${column} onChange=${(event) => setColumn(event.target.value)}>
                ${columns.map((name) => html`<option key=${name}>${name}</option>`)}
              </select>`
        }<//
      >
      <${Field} label="Comparison"
        ><select value=${operator} onChange=${(event) => setOperator(event.target.value)}>
          ${operators.map(([name, label]) => html`<option key=${name} value=${name}>${label}</option>`)}
        </select><//
      >
      <${Field} label="Value"><input required value=${value} onInput=${(event) => setValue(event.target.value)} /><//>
      <button>Add the filter</button>
    </form>
    ${
      filters.length > 0 &&
      html`<p class="row">
        ${filters.map(
          ([name, one]) =>
            html`<button
              key=${name}
              type="button"
              class="small"
              onClick=${() => set({ [name]: "" })}
              aria-label=${`Remove the filter ${textOf(name, one, prefix)}`}
            >
              ${textOf(name, one, prefix)} ✕
            </button>`
        )}
      </p>`
    }`
}
