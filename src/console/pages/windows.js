// Windows: the columns of a window as lines over time, for one key.
import { useGet, withQuery } from "../lib/api.js"
import { shellWord } from "../lib/format.js"
import { html } from "../lib/html.js"
import { go, linkTo } from "../lib/router.js"
import { Chart } from "../parts/chart.js"
import { Command, Empty, Field, Loaded } from "../parts/common.js"

const isNumber = (type) => /^(smallint|integer|bigint|real|double precision|numeric)/.test(type)
/** How many windows are shown. */
const shown = 200

const Lines = ({ query, view }) => {
  const names = view.columns.map(({ name }) => name)
  const start = names.find((name) => /start/.test(name) && view.key.includes(name))
  const size = names.find((name) => /size/.test(name) && view.key.includes(name))
  const keys = view.key.filter((name) => name !== start && name !== size)
  const values = view.columns.filter(({ name, type }) => isNumber(type) && !view.key.includes(name))
  const filters = Object.fromEntries(
    [...keys, size].filter((name) => name !== undefined).map((name) => [name, query[name]])
  )
  const sample = useGet(
    withQuery(`/v1/views/${encodeURIComponent(view.name)}`, { limit: "200", order: `${start}.desc` }),
    { every: 15_000 }
  )
  const first = sample.data?.rows[0]
  const chosen = {
    ...Object.fromEntries(
      Object.keys(filters).map((name) => [name, first === undefined ? undefined : String(first[name])])
    ),
    ...Object.fromEntries(Object.entries(filters).filter(([, value]) => value !== undefined))
  }
  const path = withQuery(`/v1/views/${encodeURIComponent(view.name)}`, {
    ...chosen,
    order: `${start}.desc`,
    limit: String(shown)
  })
  const page = useGet(first === undefined ? undefined : path, { every: 2_000 })
  const set = (changes) => go(linkTo(["windows", view.name], { ...query, ...changes }), { replace: true })
  const optionsOf = (name) => [...new Set((sample.data?.rows ?? []).map((row) => String(row[name])))].toSorted()
  return html`<section class="card">
    <div class="row end">
      ${Object.keys(filters).map(
        (name) =>
          html`<${Field} key=${name} label=${name}
            ><input
              list=${`of-${name}`}
              value=${chosen[name] ?? ""}
              onChange=${(event) => set({ [name]: event.target.value })}
            /><datalist id=${`of-${name}`}>
              ${optionsOf(name).map((one) => html`<option key=${one} value=${one}></option>`)}
            </datalist><//
          >`
      )}
    </div>
    <${Loaded} of=${sample}>
      ${({ rows }) =>
        rows.length === 0
          ? html`<${Empty} title="No window yet"><p>A window has a row once an event falls into it.</p><//>`
          : html`<${Loaded} of=${page}>
                ${({ rows: found }) => {
                  const ordered = found.toReversed()
                  const times = ordered.map((row) => Date.parse(row[start]))
                  return values.map(
                    ({ name }) =>
                      html`<h2 key=${`${name} title`}>${name}</h2>
                        <${Chart}
                          key=${name}
                          times=${times}
                          series=${[{ label: name, values: ordered.map((row) => row[name]) }]}
                          summary=${`${name} of ${ordered.length} windows, the last ${ordered.at(-1)?.[name] ?? "none"}`}
                          height=${140}
                        />`
                  )
                }}
              <//>
              <${Command} label="request" text=${`curl ${shellWord(location.origin + path)}`} />`}
    <//>
  </section>`
}

export default ({ path: [name], query }) => {
  const list = useGet("/v1/views")
  return html`<header class="head"><h1>Windows</h1></header>
    <${Loaded} of=${list}>
      ${({ views }) => {
        const windows = views.filter(({ kind }) => kind === "window")
        const view = windows.find((one) => one.name === name) ?? windows[0]
        if (view === undefined)
          return html`<${Empty} title="The application has no windows"
            ><p>A window adds up the events of a key over a time: <code>Window.tumbling</code>.</p><//
          >`
        return html`<${Field} label="Window"
            ><select value=${view.name} onChange=${(event) => go(linkTo(["windows", event.target.value]))}>
              ${windows.map((one) => html`<option key=${one.name}>${one.name}</option>`)}
            </select><//
          >
          <${Lines} key=${view.name} view=${view} query=${query} />`
      }}
    <//>`
}
