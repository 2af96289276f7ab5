// Aggregates: their streams, the state of one now and after each of its events, and its commands as forms.
import { curlOf, send, useGet, withQuery } from "../lib/api.js"
import { number, shellWord } from "../lib/format.js"
import { html, useEffect, useState } from "../lib/html.js"
import { useLack } from "../lib/may.js"
import { go, linkTo } from "../lib/router.js"
import { Action, Command, Data, Empty, Field, Json, Loaded, Table, Tag, Time } from "../parts/common.js"
import { SendCommand } from "../parts/command.js"
import { pathsOf } from "../parts/difference.js"

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

const changeOf = ({ candidate, live, path }) =>
  html`<li key=${path}>
    <code>${path}</code>: ${live === undefined ? "–" : JSON.stringify(live)}${" → "}
    ${candidate === undefined ? "–" : JSON.stringify(candidate)}
  </li>`
/** The state at a version, and what the event of that version changed. */
const State = ({ base, newest, version }) => {
  const shown = useGet(version === undefined ? undefined : withQuery(base, { version: String(version) }))
  const at = version ?? newest.data?.version
  const before = useGet(at === undefined || at < 2 ? undefined : withQuery(base, { version: String(at - 1) }))
  return html`<${Loaded} of=${version === undefined ? newest : shown}>
    ${(found) => {
      const changed =
        before.data?.version === found.version - 1
          ? pathsOf(before.data.state, found.state).filter(({ differs }) => differs)
          : []
      return html`<p class="quiet">
          ${version === undefined ? `Now, at version ${found.version}` : `As it was at version ${found.version}`}
        </p>
        <${Json} value=${found.state} />
        ${
          changed.length > 0 &&
          html`<p class="quiet">Changed by the event of version ${found.version}:</p>
            <ul>
              ${changed.map(changeOf)}
            </ul>`
        }`
    }}
  <//>`
}

/** The action that closes a stream. */
const Archive = ({ aggregate, id, onDone, version }) => {
  const path = `/v1/operations/aggregates/${aggregate.path}/${encodeURIComponent(id)}/archive`
  const act = async () => {
    const { repeated, version: last } = (await send("POST", path)).body
    return `${aggregate.name} ${id} ${repeated ? "was archived before" : "is archived"}; its last version is ${last}.`
  }
  return html`<${Action}
    label="Archive"
    reason=${useLack()("operate")?.message}
    danger
    confirm="archive"
    describe=${`${aggregate.name} ${id}, now at version ${version}, will take no more events: commands that would append some are refused, in all processes, and so are timers and policies that send them. Its events and its state stay, and are read as before. This cannot be undone.`}
    command=${`npx millrace aggregate archive ${shellWord(aggregate.name)} ${shellWord(id)}`}
    request=${curlOf("POST", path)}
    act=${act}
    onDone=${onDone}
  />`
}

/** How many events a page of the history has. */
const pageEvents = 100
const Stream = ({ aggregate, document, id, query }) => {
  const base = `/v1/aggregates/${aggregate.path}/${encodeURIComponent(id)}`
  const newest = useGet(base, { every: 3_000 })
  const version = query.version === undefined ? undefined : Number(query.version)
  const last = newest.data?.version
  const from =
    query.from === undefined
      ? last === undefined
        ? undefined
        : Math.max(1, last - pageEvents + 1)
      : Number(query.from)
  const events = useGet(
    from === undefined ? undefined : withQuery(`${base}/events`, { limit: String(pageEvents), from: String(from) }),
    { every: 5_000 }
  )
  const here = (changes) => linkTo(["aggregates", aggregate.name, id], { ...query, ...changes })
  const show = (one) => go(here({ version: one === undefined || one === last ? "" : String(one) }), { replace: true })
  const isNew = newest.error?.status === 404
  const closed = events.data?.closed
  return html`${
      closed &&
      html`<div class="note-box" role="status">
        Archived: it takes no more events. What it has stays, and repeated commands still get their answers.
      </div>`
    }
    <div class="columns">
      <section class="card">
        <div class="row spread">
          <h2>State ${closed && html`<${Tag} kind="warn">${closed}<//>`}</h2>
          ${last > 0 && !closed && html`<${Archive} aggregate=${aggregate} id=${id} version=${last} onDone=${() => (newest.reload(), events.reload())} />`}
        </div>
        ${
          isNew
            ? html`<${Empty} title="No events yet"><p>A command makes the first one.</p><//>`
            : html`<${State} base=${base} newest=${newest} version=${version} />`
        }
        ${
          last > 1 &&
          html`<${Field} label=${`Version ${version ?? last} of ${last}`}
            ><input
              type="range"
              min="1"
              max=${last}
              value=${version ?? last}
              onChange=${(event) => show(Number(event.target.value))}
          /><//>`
        }
        <${Command}
          text=${`npx millrace aggregate show ${shellWord(aggregate.name)} ${shellWord(id)}${version === undefined ? "" : ` --version ${version}`}`}
        />
      </section>
      <${SendCommand}
        aggregate=${aggregate}
        closed=${closed}
        document=${document}
        id=${id}
        name=${query.command}
        onName=${(name) => go(here({ command: name }), { replace: true })}
        version=${isNew ? 0 : last}
        onDone=${() => (newest.reload(), events.reload())}
      />
    </div>
    ${!isNew && html`<${History} of=${events} from=${from} last=${last} show=${show} shown=${version} topic=${aggregate.name} here=${here} />`}`
}
const History = ({ from, here, last, of, show, shown, topic }) =>
  html`<section class="card">
    <h2>Events</h2>
    <${Loaded} of=${of}>
      ${({ events: rows }) =>
        html`<${Table}
            caption="Events, the newest first"
            rows=${rows.toReversed()}
            keyOf=${(row) => row.version}
            columns=${[
              {
                name: "version",
                numeric: true,
                cell: (row) =>
                  html`<button
                    type="button"
                    class="small"
                    aria-pressed=${row.version === shown}
                    title="The state after it"
                    onClick=${() => show(row.version)}
                  >
                    ${row.version}
                  </button>`
              },
              { name: "type", cell: ({ event }) => html`<strong>${event.type}</strong>` },
              {
                name: "event",
                wide: true,
                label: "fields",
                cell: ({ event: { type: _, ...rest } }) => html`<code>${JSON.stringify(rest)}</code>`
              },
              { name: "appended_at", label: "appended", cell: (row) => html`<${Time} at=${row.appended_at} />` },
              { name: "actor", cell: ({ headers }) => headers?.["millrace-actor"] ?? "" },
              {
                name: "record",
                cell: ({ partition, position }) =>
                  html`<a href=${linkTo("events", { topic, at: `${partition}:${position}` })}
                    >${partition}@${position}</a
                  >`
              }
            ]}
          />
          <div class="row">
            ${from > 1 && html`<a href=${here({ from: String(Math.max(1, from - pageEvents)) })}>Earlier events</a>`}
            ${rows.at(-1)?.version < last && html`<a href=${here({ from: String(from + pageEvents) })}>Later events</a> <a href=${here({ from: "" })}>The newest</a>`}
          </div>`}
    <//>
  </section>`

/** The columns of a list of streams. */
const streamColumns = (aggregate) => [
  {
    name: "id",
    cell: ({ id }) => html`<a href=${linkTo(["aggregates", aggregate, id])}><${Data} value=${id} /></a>`
  },
  { name: "version", label: "events", numeric: true, cell: (row) => number(row.version) },
  {
    name: "appended_at",
    label: "last event",
    cell: (row) => html`<${Time} at=${row.appended_at} />`
  },
  { name: "tenant", cell: ({ tenant }) => tenant ?? "" },
  {
    name: "closed",
    label: "",
    cell: ({ closed }) => closed && html`<${Tag} kind="warn">${closed}<//>`
  }
]
/** Opens a stream by its id, and lists those that there are. */
const Streams = ({ aggregate, query }) => {
  const { after, order = "recent", prefix = "" } = query
  const [text, setText] = useState(prefix)
  useEffect(() => setText(prefix), [prefix])
  const list = useGet(withQuery(`/v1/aggregates/${aggregate.path}`, { order, limit: "50", prefix, after }), {
    every: after === undefined ? 5_000 : undefined
  })
  const here = (changes) => linkTo(["aggregates", aggregate.name], { order, prefix, after, ...changes })
  const open = (event) => {
    event.preventDefault()
    if (text !== "") go(linkTo(["aggregates", aggregate.name, text]))
  }
  return html`<section class="card">
    <div class="row spread">
      <h2><a href=${linkTo(["aggregates", aggregate.name])}>${aggregate.name}</a></h2>
      <span class="quiet">commands: ${aggregate.commands.map(({ name }) => name).join(", ") || "none here"}</span>
    </div>
    <form class="row end" onSubmit=${open}>
      <${Field} label="Id"><input name="id" value=${text} onInput=${(event) => setText(event.target.value)} /><//>
      <button class="primary">Open</button>
      <button type="button" onClick=${() => go(here({ prefix: text, order: "id", after: "" }))}>
        List ids that begin so
      </button>
      <a href=${here({ order: order === "recent" ? "id" : "recent", prefix: "", after: "" })}
        >${order === "recent" ? "All, by id" : "The last ones"}</a
      >
    </form>
    <${Loaded} of=${list}>
      ${({ next, streams }) =>
        html`${
            streams.length === 0
              ? html`<${Empty} title=${prefix === "" ? "No streams yet" : `No id begins with ${prefix}`}
                  ><p>Open an id, and send a command: that makes its first event.</p>
                  <${Command}
                    text=${`npx millrace aggregate send ${shellWord(aggregate.name)} ID ${aggregate.commands[0]?.name ?? "COMMAND"} '{}'`}
                /><//>`
              : html`<${Table}
                  stacks
                  caption=${`Streams of ${aggregate.name}, ${order === "recent" ? "the last ones first" : "by id"}`}
                  rows=${streams}
                  keyOf=${({ id }) => id}
                  columns=${streamColumns(aggregate.name)}
                />`
          }
          <div class="row">
            ${after && html`<button type="button" onClick=${() => history.back()}>Back</button>`}
            ${next && html`<a href=${here({ after: next })}>Next 50</a>`}
          </div>`}
    <//>
    <${Command}
      text=${`npx millrace aggregate list ${shellWord(aggregate.name)}${order === "recent" ? " --recent" : ""}${prefix === "" ? "" : ` --prefix ${shellWord(prefix)}`}`}
    />
  </section>`
}

export default ({ path: [name, id], query }) => {
  const document = useGet("/openapi.json")
  return html`<header class="head">
      <h1>
        ${name === undefined ? "Aggregates" : html`<a href=${linkTo("aggregates")}>Aggregates</a> / ${id === undefined ? name : html`<a href=${linkTo(["aggregates", name])}>${name}</a> / <${Data} value=${id} />`}`}
      </h1>
    </header>
    <${Loaded} of=${document}>
      ${(found) => {
        const aggregates = aggregatesOf(found)
        if (aggregates.length === 0)
          return html`<${Empty} title="The application has no aggregates"
            ><p>An aggregate takes commands and decides which events follow.</p><//
          >`
        const shown = aggregates.filter((one) => name === undefined || one.name === name)
        if (shown.length === 0)
          return html`<${Empty} title=${`There is no aggregate ${name}`}
            ><a href=${linkTo("aggregates")}>All aggregates</a><//
          >`
        return id === undefined
          ? shown.map(
              (one) => html`<${Streams} key=${one.name} aggregate=${one} query=${name === undefined ? {} : query} />`
            )
          : html`<${Stream} key=${`${name} ${id}`} aggregate=${shown[0]} document=${found} id=${id} query=${query} />`
      }}
    <//>`
}
