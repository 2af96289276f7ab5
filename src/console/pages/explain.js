// Why a row is as it is: the events that made it, what they saw, and what a replay of them gives.
import { useGet } from "../lib/api.js"
import { number, shellWord } from "../lib/format.js"
import { html, useEffect, useState } from "../lib/html.js"
import { runJob } from "../lib/jobs.js"
import { go, linkTo } from "../lib/router.js"
import { Command, Empty, Field, Json, Loaded, Problem, Table, Tag, Time } from "../parts/common.js"

const Explanation = ({ found }) =>
  html`<section class="card">
    <div class="row spread">
      <h2>${found.table} in ${found.projection}, build ${found.build}</h2>
      ${found.same === true && html`<${Tag} kind="good">a replay gives the same row<//>`}
      ${found.same === false && html`<${Tag} kind="bad">a replay gives another row<//>`}
    </div>
    ${found.notes.map((note) => html`<p class="note-box">${note}</p>`)}
    <div class="columns">
      <div>
        <h3>The row</h3>
        <${Json} value=${found.stored} />
      </div>
      ${
        found.same === false &&
        html`<div>
          <h3>What a replay gives</h3>
          <${Json} value=${found.replayed} />
        </div>`
      }
    </div>
    <h3>Its events</h3>
    ${
      found.events.length === 0
        ? html`<${Empty} title="The log has no event for this key" />`
        : html`<${Table}
            caption="Events of the row"
            rows=${found.events}
            keyOf=${({ partition, position, topic }) => `${topic} ${partition} ${position}`}
            columns=${[
              {
                name: "position",
                cell: ({ partition, position, topic }) =>
                  html`<a href=${linkTo("events", { topic, partition: String(partition), from: String(position) })}
                    >${topic} ${partition}:${position}</a
                  >`
              },
              { name: "type" },
              { name: "event_time", label: "event time", cell: (event) => html`<${Time} at=${event.event_time} />` },
              { name: "outcome" },
              { name: "value", cell: ({ value }) => html`<code>${JSON.stringify(value)}</code>` }
            ]}
          />`
    }
    ${found.omitted > 0 && html`<p class="quiet">${number(found.omitted)} more events are not shown.</p>`}
  </section>`

const Running = ({ body }) => {
  const [state, setState] = useState({})
  useEffect(() => {
    let isGone = false
    const set = (next) => !isGone && setState(next)
    runJob("/v1/operations/explain", body).then(
      (found) => set({ found }),
      (error) => set({ error })
    )
    return () => (isGone = true)
  }, [])
  const { error, found } = state
  return html`<${Problem}
      error=${error}
    />${found === undefined && error === undefined && html`<p class="quiet" role="status">The log is searched…</p>`}
    ${found?.map((one) => html`<${Explanation} found=${one} />`)}`
}

/** The key of a request: the value of one column, or an object of all. */
const keyOf = (view, query) =>
  view.key.length === 1 ? query[view.key[0]] : Object.fromEntries(view.key.map((name) => [name, query[name]]))

const Form = ({ query, views }) => {
  const view = views.find(({ name }) => name === query.table) ?? views[0]
  const [texts, setTexts] = useState(query)
  const submit = (event) => {
    event.preventDefault()
    go(linkTo("explain", { table: view.name, ...Object.fromEntries(view.key.map((name) => [name, texts[name]])) }))
  }
  const isAsked = view.name === query.table && view.key.every((name) => query[name] !== undefined)
  const key = keyOf(view, query)
  return html`<form class="card row end" onSubmit=${submit}>
      <${Field} label="Table"
        ><select value=${view.name} onChange=${(event) => go(linkTo("explain", { table: event.target.value }))}>
          ${views.map(({ name }) => html`<option key=${name}>${name}</option>`)}
        </select><//
      >
      ${view.key.map(
        (name) =>
          html`<${Field} key=${name} label=${name}
            ><input
              required
              value=${texts[name] ?? ""}
              onInput=${(event) => setTexts({ ...texts, [name]: event.target.value })}
          /><//>`
      )}
      <button class="primary">Explain</button>
    </form>
    ${isAsked && html`<${Running} key=${JSON.stringify(query)} body=${{ table: view.name, key }} />`}
    ${isAsked && html`<${Command} text=${`npx millrace explain ${view.name} ${shellWord(typeof key === "string" ? key : JSON.stringify(key))}`} />`}`
}

export default ({ query }) => {
  const list = useGet("/v1/views")
  return html`<header class="head"><h1>Explain</h1></header>
    <p class="lead">Why a row is as it is: the events that made it, from the log, and what a replay of them gives.</p>
    <${Loaded} of=${list}>
      ${({ views }) => {
        const written = views.filter(({ key }) => key.length > 0)
        return written.length === 0
          ? html`<${Empty} title="No table is written by a projection"
              ><p>Only rows that a projection writes can be explained: name a table in its <code>writes</code>.</p><//
            >`
          : html`<${Form} key=${query.table} views=${written} query=${query} />`
      }}
    <//>`
}
