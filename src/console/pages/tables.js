// Tables, windows and views: rows in pages, filtered and ordered by the server. Read-only.
import { curlOf, useGet, withQuery } from "../lib/api.js"
import { counted, zone } from "../lib/format.js"
import { html, useState } from "../lib/html.js"
import { go, linkTo } from "../lib/router.js"
import { columnsParameter, fileOf, filtersOf, operatorsOf, sqlCommand, sqlOf, valueFor } from "../lib/rows.js"
import { isNumber, isTime } from "../lib/types.js"
import { Cell } from "../parts/cell.js"
import { Command, Empty, Field, Loaded, Table, Tag, Withheld } from "../parts/common.js"

const rowsOfPage = 50
/** A value that would be lost in a path of an address. */
const isText = (value) => typeof value === "string" && value !== ""

const Views = ({ views }) =>
  html`<${Table}
    caption="Tables, windows and views"
    rows=${views}
    keyOf=${({ name }) => name}
    columns=${[
      { name: "name", cell: ({ name }) => html`<a href=${linkTo(["tables", name])}>${name}</a>` },
      { name: "kind", cell: ({ kind }) => html`<${Tag}>${kind}<//>` },
      {
        name: "written_by",
        label: "written by",
        cell: ({ written_by: by }) =>
          by.map((name) => html`<a key=${name} href=${linkTo(["versions", name])}>${name}</a> `)
      },
      {
        name: "columns",
        cell: ({ columns }) => html`<span class="quiet">${columns.map(({ name }) => name).join(", ")}</span>`
      }
    ]}
  />`

const labels = {
  eq: "is",
  ne: "is not",
  gt: ">",
  gte: "≥",
  lt: "<",
  lte: "≤",
  in: "is one of",
  prefix: "begins with",
  null: "is null"
}
const hintOf = (type = "", operator) =>
  operator === "in" ? "values with commas between" : isTime(type) ? `as in the table, in ${zone()}` : type
/** The input of a filter's value, by the column's type. */
const ValueInput = ({ onValue, operator, type, value }) => {
  const set = (event) => onValue(event.target.value)
  if (operator === "null" || type === "boolean")
    return html`<select name="value" value=${value} onChange=${set}>
      <option value="true">true</option>
      <option value="false">false</option>
    </select>`
  return html`<input
    name="value"
    required=${!/^text$/.test(type)}
    value=${value}
    inputmode=${isNumber(type) && operator !== "in" ? "decimal" : undefined}
    onInput=${set}
  />`
}
/** A form that adds a filter to the address. */
const Filters = ({ query, set, view: { columns } }) => {
  const [column, setColumn] = useState(columns[0]?.name)
  const [operator, setOperator] = useState("eq")
  const [value, setValue] = useState("")
  const type = columns.find(({ name }) => name === column)?.type ?? "text"
  const possible = operatorsOf(type)
  const chosen = possible.includes(operator) ? operator : possible[0]
  const isFlag = chosen === "null" || type === "boolean"
  const given = isFlag && value !== "false" ? "true" : value
  const parameter = valueFor(type, chosen, given)
  const add = (event) => {
    event.preventDefault()
    // an empty parameter would be left out of the address: an empty text is one of a list
    set(given === "" ? { [`${column}.in`]: '[""]', after: "" } : { [`${column}.${chosen}`]: parameter, after: "" })
    setValue("")
  }
  return html`<form class="row end" onSubmit=${add}>
      <${Field} label="Column" hint=${type}
        ><select name="column" value=${column} onChange=${(event) => setColumn(event.target.value)}>
          ${columns.map(({ name }) => html`<option key=${name}>${name}</option>`)}
        </select><//
      >
      <${Field} label="Comparison"
        ><select name="comparison" value=${chosen} onChange=${(event) => setOperator(event.target.value)}>
          ${possible.map((name) => html`<option key=${name} value=${name}>${labels[name]}</option>`)}
        </select><//
      >
      <${Field} label="Value" hint=${hintOf(type, chosen)}
        ><${ValueInput} operator=${chosen} type=${type} value=${given} onValue=${setValue}
      /><//>
      <button>Add the filter</button>
    </form>
    <${Given} columns=${columns} query=${query} set=${set} />`
}
const Given = ({ columns, query, set }) => {
  const filters = filtersOf(query, columns)
  return (
    filters.length > 0 &&
    html`<p class="row">
      ${filters.map(
        ({ column, name, operator, value }) =>
          html`<button
            key=${name}
            type="button"
            class="small"
            onClick=${() => set({ [name]: "", after: "" })}
            aria-label=${`Remove the filter ${name} ${value}`}
          >
            ${`${column} ${labels[operator] ?? operator} ${value}`} ✕
          </button>`
      )}
    </p>`
  )
}
/** Which columns are shown. */
const Columns = ({ columns, set, shown }) => {
  const toggle = (name) => {
    const names = columns
      .map((one) => one.name)
      .filter((one) => (one === name) !== shown.some((other) => other.name === one))
    set({ [columnsParameter]: names.length === columns.length || names.length === 0 ? "" : JSON.stringify(names) })
  }
  return html`<details>
    <summary>
      ${shown.length === columns.length ? "All columns" : `${shown.length} of ${counted(columns.length, "column")}`}
    </summary>
    <div class="row">
      ${columns.map(
        ({ name }) =>
          html`<label key=${name} class="check"
            ><input type="checkbox" checked=${shown.some((one) => one.name === name)} onChange=${() => toggle(name)} />
            <span>${name}</span></label
          >`
      )}
    </div>
  </details>`
}
const shownOf = (columns, given) => {
  try {
    const names = JSON.parse(given)
    const some = columns.filter(({ name }) => names.includes(name))
    return some.length === 0 ? columns : some
  } catch {
    return columns
  }
}

/** Saves a page of rows as a file. */
const save = (view, form, rows, columns) => {
  const url = URL.createObjectURL(
    new Blob([fileOf(form, rows, columns)], { type: form === "csv" ? "text/csv" : "application/x-ndjson" })
  )
  const link = Object.assign(document.createElement("a"), { href: url, download: `${view.name}.${form}` })
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 1_000)
}

const headOf = (column, query, set) => {
  const [ordered = "", direction = "asc"] = (query.order ?? "").split(/\.(?=asc$|desc$)/)
  const isOrdered = ordered === column.name
  const next = isOrdered && direction === "asc" ? "desc" : "asc"
  return html`<button
    type="button"
    class="small"
    title=${column.type}
    aria-label=${`Order by ${column.name}, ${next === "asc" ? "ascending" : "descending"}`}
    onClick=${() => set({ order: `${column.name}.${next}`, after: "" })}
  >
    ${column.name}${isOrdered ? (direction === "asc" ? " ↑" : " ↓") : ""}
  </button>`
}
const LinksOf = ({ row, view }) => {
  const [first] = view.key
  if (view.kind === "view" || first === undefined) return null
  const key = Object.fromEntries(view.key.map((name) => [name, String(row[name] ?? "")]))
  return html`<a href=${linkTo("explain", { table: view.name, ...key })}>why</a>
    ${isText(row[first]) && html` <a href=${linkTo(["entity", row[first]])}>events</a>`}`
}
const Rows = ({ query, view }) => {
  const set = (changes) => go(linkTo(["tables", view.name], { ...query, ...changes }))
  const { [columnsParameter]: given, ...asked } = query
  const shown = shownOf(view.columns, given)
  const path = withQuery(`/v1/views/${encodeURIComponent(view.name)}`, { limit: String(rowsOfPage), ...asked })
  const page = useGet(path, { every: query.after === undefined ? 5_000 : undefined })
  const columns = shown.map((column) => ({
    name: column.name,
    numeric: isNumber(column.type),
    label: headOf(column, query, set),
    cell: (row) => html`<${Cell} column=${column} value=${row[column.name]} />`
  }))
  const links = { name: "~links", label: "", cell: (row) => html`<${LinksOf} row=${row} view=${view} />` }
  return html`<section class="card">
      <${Filters} view=${view} query=${query} set=${set} />
      <${Columns} columns=${view.columns} shown=${shown} set=${set} />
      <${Loaded} of=${page}>
        ${({ next, previous, rows }) =>
          html`${
              rows.length === 0
                ? html`<${Empty} title=${query.after === undefined ? "No rows" : "No more rows"}>
                    <p>
                      ${`${view.written_by.length > 0 ? `${view.written_by.join(", ")} writes them. ` : ""}Remove a filter, or send events.`}
                    </p>
                    <a href=${linkTo("send")}>Send an event</a>
                  <//>`
                : html`<${Table}
                    caption=${`Rows of ${view.name}`}
                    columns=${view.kind === "view" || view.key.length === 0 ? columns : [...columns, links]}
                    rows=${rows}
                    keyOf=${(row, i) => view.key.map((name) => row[name]).join(" ") || i}
                  />`
            }
            <div class="row">
              ${
                query.after !== undefined &&
                html`<button type="button" onClick=${() => set({ after: "" })}>First rows</button> ${
                    previous
                      ? html`<button type="button" onClick=${() => set({ after: previous })}>
                          Previous ${rowsOfPage} rows
                        </button>`
                      : previous === undefined &&
                        html`<button type="button" onClick=${() => history.back()}>Back</button>`
                  }`
              }
              ${next !== null && html`<button type="button" onClick=${() => set({ after: next })}>Next ${rowsOfPage} rows</button>`}
              ${
                rows.length > 0 &&
                ["csv", "ndjson"].map(
                  (form) =>
                    html`<button key=${form} type="button" class="small" onClick=${() => save(view, form, rows, shown)}>
                      This page as ${form === "csv" ? "CSV" : "NDJSON"}
                    </button>`
                )
              }
            </div>`}
      <//>
    </section>
    <${Command} label="request" text=${curlOf("GET", path)} />
    <${Command} text=${sqlCommand(sqlOf(view, asked, { columns: shown, limit: rowsOfPage }))} />`
}

export default ({ path: [name], query }) => {
  const list = useGet("/v1/views")
  return html`<header class="head">
      <h1>${name === undefined ? "Tables" : html`<a href=${linkTo("tables")}>Tables</a> / ${name}`}</h1>
    </header>
    <${Loaded} of=${list}>
      ${({ views, withheld }) => {
        const view = views.find((one) => one.name === name)
        if (view !== undefined) return html`<${Rows} key=${name} view=${view} query=${query} />`
        if (name !== undefined)
          return html`<${Empty} title=${`There is no table ${name}`}><a href=${linkTo("tables")}>All tables</a><//>`
        const others = withheld === undefined ? 0 : withheld.table + withheld.window + withheld.view
        return views.length === 0 && others > 0
          ? html`<${Withheld} count=${others} noun="table" />`
          : views.length === 0
            ? html`<${Empty} title="No tables yet"><p>A projection writes tables that it names in writes.</p><//>`
            : html`<section class="card"><${Views} views=${views} /></section>`
      }}
    <//>`
}
