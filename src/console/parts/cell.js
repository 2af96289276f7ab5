// The cells of a table of rows: what is long or nested is shortened, and opens in a dialog; null, an empty text, bytes and times are told apart.
import { counted, dataNumber, isMoment } from "../lib/format.js"
import { html, useState } from "../lib/html.js"
import { isNested } from "../lib/json.js"
import { isJson, isTime } from "../lib/types.js"
import { Command, Data, Dialog, Json, Time } from "./common.js"

/** How many characters of a text a cell shows. */
const most = 80

const textOf = (value, type) => (isJson(type) || isNested(value) ? JSON.stringify(value) : String(value))
const Whole = ({ column, onClose, value }) => {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2)
  return html`<${Dialog} title=${column.name} onClose=${onClose}>
    <p class="quiet">${column.type}, ${counted([...text].length, "character")}</p>
    <${Json} value=${value} />
    <${Command} label="value" text=${typeof value === "string" ? value : JSON.stringify(value)} />
  <//>`
}
/** A value of a column. */
export const Cell = ({ column, value }) => {
  const [isOpen, setOpen] = useState(false)
  const { type } = column
  if (value === null || value === undefined) return html`<span class="null">null</span>`
  if (isTime(type)) return html`<${Time} at=${value} />`
  if (value === "") return html`<span class="null">empty text</span>`
  if (type === "bytea") {
    const hex = String(value).replace(/^\\x/, "")
    return html`<span class="quiet">${hex.length / 2} bytes</span>
      <code>${hex.slice(0, 32)}${hex.length > 32 ? "…" : ""}</code>`
  }
  const exact = textOf(value, type)
  const text = typeof value === "number" ? dataNumber(value) : exact
  const isLong = text.length > most || text.includes("\n")
  const shown = isLong ? `${text.slice(0, most).toWellFormed()}…` : text
  const isCode = isJson(type) || typeof value === "boolean" || typeof value === "object"
  return html`${isCode ? html`<code>${shown}</code>` : html`<span class=${text.length < 30 ? "whole" : "long"} title=${text === exact ? undefined : exact}>${isLong || typeof value !== "string" ? shown : html`<${Data} value=${value} />`}</span>`}${isMoment(column.name, value) && html` <span class="quiet">(<${Time} at=${Number(value)} />)</span>`}${
    (isLong || (isJson(type) && typeof value === "object")) &&
    html` <button type="button" class="small" aria-label=${`The whole ${column.name}`} onClick=${() => setOpen(true)}>
      …
    </button>`
  }${isOpen && html`<${Whole} column=${column} value=${value} onClose=${() => setOpen(false)} />`}`
}
