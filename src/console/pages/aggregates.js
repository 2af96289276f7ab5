// Aggregates: the state of a stream, its events, the state that it had after each, and its commands as forms.
import { send, useGet, withQuery } from "../lib/api.js"
import { shellWord } from "../lib/format.js"
import { fieldsOf, valueOf } from "../lib/forms.js"
import { html, useState } from "../lib/html.js"
import { go, linkTo } from "../lib/router.js"
import { Command, Empty, Field, Json, Loaded, Problem, Table, Time } from "../parts/common.js"
import { Inputs } from "../parts/form.js"

/** The aggregates and their commands with the schemas of their bodies, from the document of the routes. */
const aggregatesOf = ({ paths }) => {
  const found = new Map()
  for (const [path, item] of Object.entries(paths)) {
    const [, name, command] = /^\/v1\/aggregates\/([^/]+)\/\{id\}(?:\/commands\/(.+))?$/.exec(path) ?? []
    if (name === undefined) continue
    const one = found.get(name) ?? { name: decodeURIComponent(name), path: name, commands: [] }
    if (command !== undefined)
      one.commands.push({
        name: decodeURIComponent(command),
        path: command,
        schema: item.post.requestBody.content["application/json"].schema
      })
    found.set(name, one)
  }
  return [...found.values()]
}

const Send = ({ aggregate, document, id, onDone }) => {
  const [name, setName] = useState(aggregate.commands[0]?.name)
  const [texts, setTexts] = useState({})
  const [state, setState] = useState({})
  const command = aggregate.commands.find((one) => one.name === name)
  if (command === undefined) return html`<p class="quiet">This process takes no commands.</p>`
  const fields = fieldsOf(command.schema, document)
  const path = `/v1/aggregates/${aggregate.path}/${encodeURIComponent(id)}/commands/${command.path}`
  let body
  let problem
  try {
    body = JSON.stringify(valueOf(fields, texts))
  } catch (error) {
    problem = error
  }
  const submit = async (event) => {
    event.preventDefault()
    if (body === undefined) return setState({ error: problem })
    try {
      const answer = await send("POST", path, {
        body,
        accept: [409],
        headers: { "idempotency-key": crypto.randomUUID() }
      })
      if (answer.status === 409) {
        const { detail, title } = answer.body
        return setState({ error: { code: title, message: `rejected: ${detail}`, advice: answer.body.error?.try } })
      }
      const { events, version } = answer.body
      setState({
        text:
          events.length === 0
            ? `Nothing was to be done; the version is ${version}.`
            : `${events.map(({ type }) => type).join(", ")}: the version is ${version}.`
      })
      setTexts({})
      onDone()
    } catch (error) {
      setState({ error })
    }
  }
  return html`<form class="card" onSubmit=${submit}>
    <h2>Send a command</h2>
    <${Field} label="Command"
      ><select value=${name} onChange=${(event) => (setName(event.target.value), setTexts({}), setState({}))}>
        ${aggregate.commands.map((one) => html`<option key=${one.name}>${one.name}</option>`)}
      </select><//
    >
    <${Inputs} fields=${fields} texts=${texts} onTexts=${setTexts} />
    <div class="row"><button class="primary">Send</button></div>
    <${Problem} error=${state.error} />
    ${state.text && html`<p role="status">${state.text}</p>`}
    ${body !== undefined && html`<${Command} text=${`npx millrace aggregate send ${aggregate.name} ${shellWord(id)} ${command.name} ${shellWord(body)}`} />`}
  </form>`
}

const Stream = ({ aggregate, document, id, query }) => {
  const base = `/v1/aggregates/${aggregate.path}/${encodeURIComponent(id)}`
  const newest = useGet(base, { every: 3_000 })
  const version = query.version === undefined ? undefined : Number(query.version)
  const earlier = useGet(version === undefined ? undefined : withQuery(base, { version: String(version) }))
  const events = useGet(withQuery(`${base}/events`, { limit: "200", from: query.from }), { every: 5_000 })
  const show = (number) =>
    go(linkTo(["aggregates", aggregate.name, id], { ...query, version: number === undefined ? "" : String(number) }), {
      replace: true
    })
  const isNew = newest.error?.status === 404
  const shown = version === undefined ? newest : earlier
  return html`<div class="columns">
      <section class="card">
        <h2>State</h2>
        ${
          isNew
            ? html`<${Empty} title="No events yet"><p>A command makes the first one.</p><//>`
            : html`<${Loaded} of=${shown}>
                ${(found) =>
                  html`<p class="quiet">
                      ${version === undefined ? `Now, at version ${found.version}` : `As it was at version ${found.version}`}
                    </p>
                    <${Json} value=${found.state} />`}
              <//>`
        }
        ${
          newest.data &&
          newest.data.version > 1 &&
          html`<${Field} label=${`Version ${version ?? newest.data.version} of ${newest.data.version}`}
            ><input
              type="range"
              min="1"
              max=${newest.data.version}
              value=${version ?? newest.data.version}
              onChange=${(event) => show(Number(event.target.value) === newest.data.version ? undefined : Number(event.target.value))}
          /><//>`
        }
        <${Command} text=${`npx millrace aggregate show ${aggregate.name} ${shellWord(id)}`} />
      </section>
      <${Send}
        aggregate=${aggregate}
        document=${document}
        id=${id}
        onDone=${() => (newest.reload(), events.reload())}
      />
    </div>
    ${!isNew && html`<${History} of=${events} show=${show} later=${(from) => linkTo(["aggregates", aggregate.name, id], { ...query, from })} />`}`
}
const History = ({ later, of, show }) =>
  html`<section class="card">
    <h2>Events</h2>
    <${Loaded} of=${of}>
      ${({ events: rows, next }) =>
        html`<${Table}
            caption="Events"
            rows=${rows}
            keyOf=${(row) => row.version}
            columns=${[
              {
                name: "version",
                numeric: true,
                cell: (row) =>
                  html`<button type="button" class="small" onClick=${() => show(row.version)}>${row.version}</button>`
              },
              { name: "type", cell: ({ event }) => event.type },
              { name: "appended_at", label: "appended", cell: (row) => html`<${Time} at=${row.appended_at} />` },
              {
                name: "event",
                cell: ({ event: { type: _, ...rest } }) => html`<code>${JSON.stringify(rest)}</code>`
              }
            ]}
          />
          ${next && html`<a href=${later(String(next))}>Later events</a>`}`}
    <//>
  </section>`

const Open = ({ aggregates }) => {
  const [name, setName] = useState(aggregates[0].name)
  const [id, setId] = useState("")
  const submit = (event) => {
    event.preventDefault()
    go(linkTo(["aggregates", name, id]))
  }
  return html`<form class="card" onSubmit=${submit}>
    <div class="row end">
      <${Field} label="Aggregate"
        ><select value=${name} onChange=${(event) => setName(event.target.value)}>
          ${aggregates.map((one) => html`<option key=${one.name}>${one.name}</option>`)}
        </select><//
      >
      <${Field} label="Id"><input required value=${id} onInput=${(event) => setId(event.target.value)} /><//>
      <button class="primary">Open</button>
    </div>
    <p class="quiet">
      The ids are the keys of its <a href=${linkTo("events", { topic: name })}>events</a>, and in the
      <a href=${linkTo("tables")}>tables</a> that its projections write.
    </p>
  </form>`
}

export default ({ path: [name, id], query }) => {
  const document = useGet("/openapi.json")
  return html`<header class="head">
      <h1>
        ${name === undefined ? "Aggregates" : html`<a href=${linkTo("aggregates")}>Aggregates</a> / ${name}${id !== undefined && ` / ${id}`}`}
      </h1>
    </header>
    <${Loaded} of=${document}>
      ${(found) => {
        const aggregates = aggregatesOf(found)
        if (aggregates.length === 0)
          return html`<${Empty} title="The application has no aggregates"
            ><p>An aggregate takes commands and decides which events follow.</p><//
          >`
        const aggregate = aggregates.find((one) => one.name === name)
        return aggregate === undefined || id === undefined
          ? html`<${Open} aggregates=${aggregates} />`
          : html`<${Stream} key=${`${name} ${id}`} aggregate=${aggregate} document=${found} id=${id} query=${query} />`
      }}
    <//>`
}
