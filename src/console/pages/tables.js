// Tables, windows and views: rows in pages, filtered and ordered by the server. Read-only.
import { useGet, withQuery } from "../lib/api.js"
import { shellWord } from "../lib/format.js"
import { html, useState } from "../lib/html.js"
import { go, linkTo } from "../lib/router.js"
import { Command, Empty, Field, Loaded, Table, Tag, Time, Value } from "../parts/common.js"

const operators = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "prefix", "null"]
const rowsOfPage = 50
const isTime = (type) => type.startsWith("timestamp")
const isNumber = (type) => /^(smallint|integer|bigint|real|double precision|numeric)/.test(type)

const Views = ({ views }) =>
  html`<${Table}
    caption="Tables, windows and views"
    rows=${views}
    keyOf=${({ name }) => name}
    columns=${[
      { name: "name", cell: ({ name }) => html`<a href=${linkTo(["tables", name])}>${name}</a>` },
      { name: "kind", cell: ({ kind }) => html`<${Tag}>${kind}<//>` },
      { name: "written_by", label: "written by", cell: ({ written_by: by }) => by.join(", ") },
      {
        name: "columns",
        cell: ({ columns }) => html`<span class="quiet">${columns.map(({ name }) => name).join(", ")}</span>`
      }
    ]}
  />`

/** A form that adds a filter to the address. */
const Filters = ({ columns, query, set }) => {
  const [column, setColumn] = useState(columns[0]?.name)
  const [operator, setOperator] = useState("eq")
  const [value, setValue] = useState("")
  const add = (event) => {
    event.preventDefault()
    set({ [operator === "eq" ? column : `${column}.${operator}`]: value, after: "" })
    setValue("")
  }
  const filters = Object.entries(query).filter(([name]) => !["order", "after", "limit"].includes(name))
  return html`<form class="row end" onSubmit=${add}>
      <${Field} label="Column"
        ><select value=${column} onChange=${(event) => setColumn(event.target.value)}>
          ${columns.map(({ name }) => html`<option key=${name}>${name}</option>`)}
        </select><//
      >
      <${Field} label="Comparison"
        ><select value=${operator} onChange=${(event) => setOperator(event.target.value)}>
          ${operators.map((name) => html`<option key=${name}>${name}</option>`)}
        </select><//
      >
      <${Field} label="Value"><input required value=${value} onInput=${(event) => setValue(event.target.value)} /><//>
      <button>Add the filter</button>
    </form>
    ${
      filters.length > 0 &&
      html`<p class="row">
        ${filters.map(
          ([name, text]) =>
            html`<button
              key=${name}
              type="button"
              class="small"
              onClick=${() => set({ [name]: "", after: "" })}
              aria-label=${`Remove the filter ${name} ${text}`}
            >
              ${name} ${text} ✕
            </button>`
        )}
      </p>`
    }`
}

const cellOf =
  ({ name, type }) =>
  (row) => {
    const value = row[name]
    return isTime(type) && value !== null ? html`<${Time} at=${value} />` : html`<${Value} value=${value} />`
  }
const Rows = ({ query, view }) => {
  const set = (changes) => go(linkTo(["tables", view.name], { ...query, ...changes }))
  const path = withQuery(`/v1/views/${encodeURIComponent(view.name)}`, { limit: String(rowsOfPage), ...query })
  const page = useGet(path, query.after ? {} : { every: 5_000 })
  const [ordered = "", direction = "asc"] = (query.order ?? "").split(/\.(?=asc$|desc$)/)
  const columns = view.columns.map((column) => {
    const isOrdered = ordered === column.name
    const next = isOrdered && direction === "asc" ? "desc" : "asc"
    return {
      name: column.name,
      numeric: isNumber(column.type),
      label: html`<button
        type="button"
        class="small"
        title=${column.type}
        aria-label=${`Order by ${column.name}, ${next === "asc" ? "ascending" : "descending"}`}
        onClick=${() => set({ order: `${column.name}.${next}`, after: "" })}
      >
        ${column.name}${isOrdered ? (direction === "asc" ? " ↑" : " ↓") : ""}
      </button>`,
      cell: cellOf(column)
    }
  })
  return html`<section class="card">
      <${Filters} columns=${view.columns} query=${query} set=${set} />
      <${Loaded} of=${page}>
        ${({ next, rows }) =>
          rows.length === 0
            ? html`<${Empty} title="No rows">
                <p>
                  ${view.written_by.length > 0 ? `${view.written_by.join(", ")} writes them.` : ""} Remove a filter, or
                  send events.
                </p>
              <//>`
            : html`<${Table}
                  caption=${`Rows of ${view.name}`}
                  columns=${columns}
                  rows=${rows}
                  keyOf=${(row, i) => view.key.map((name) => row[name]).join(" ") || i}
                />
                <div class="row">
                  ${query.after && html`<button type="button" onClick=${() => history.back()}>Back</button>`}
                  ${next !== null && html`<button type="button" onClick=${() => set({ after: next })}>Next ${rowsOfPage} rows</button>`}
                </div>`}
      <//>
    </section>
    <${Command} label="request" text=${`curl ${shellWord(location.origin + path)}`} />`
}

export default ({ path: [name], query }) => {
  const list = useGet("/v1/views")
  return html`<header class="head">
      <h1>${name === undefined ? "Tables" : html`<a href=${linkTo("tables")}>Tables</a> / ${name}`}</h1>
    </header>
    <${Loaded} of=${list}>
      ${({ views }) => {
        const view = views.find((one) => one.name === name)
        if (view !== undefined) return html`<${Rows} key=${name} view=${view} query=${query} />`
        if (name !== undefined)
          return html`<${Empty} title=${`There is no table ${name}`}><a href=${linkTo("tables")}>All tables</a><//>`
        return views.length === 0
          ? html`<${Empty} title="No tables yet"><p>A projection writes tables that it names in writes.</p><//>`
          : html`<section class="card"><${Views} views=${views} /></section>`
      }}
    <//>`
}
