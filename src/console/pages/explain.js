// Why a row is as it is: the events that made it, what each changed and what they saw, and what a replay of them gives.
import { useCredential, useGet } from "../lib/api.js"
import { counted, number, shellWord } from "../lib/format.js"
import { html, useEffect, useState } from "../lib/html.js"
import { runJob } from "../lib/jobs.js"
import { parseJson, same } from "../lib/json.js"
import { useLack } from "../lib/may.js"
import { go, linkTo } from "../lib/router.js"
import { Command, Data, Empty, Field, FieldValue, Json, Loaded, NoSuch, Problem, Tag, Time } from "../parts/common.js"

/** How many events an explanation has at first, and at most. */
const limits = { usual: 100, most: 1_000 }
const kinds = { applied: "good", late: "warn", dead_letter: "bad" }

const Cell = ({ column, value, view }) =>
  html`<${FieldValue} name=${column} type=${view.columns.find(({ name }) => name === column)?.type} value=${value} />`
const Row = ({ row, view }) =>
  row === null
    ? html`<p class="quiet">There is no such row.</p>`
    : html`<dl class="pairs">
        ${Object.entries(row).map(
          ([name, value]) =>
            html`<dt key=${name}>${name}</dt>
              <dd><${Cell} column=${name} value=${value} view=${view} /></dd>`
        )}
      </dl>`

/** What an event changed of the row: each column with its value before and after. */
const Changes = ({ after, before, view }) => {
  if (same(after, before)) return null
  if (after === null) return html`<p><${Tag} kind="bad">deleted<//></p>`
  const names = Object.keys(after).filter((name) => !same(before?.[name], after[name]))
  return html`<dl class="pairs">
    ${names.map(
      (name) =>
        html`<dt key=${name}>${name}</dt>
          <dd class="mark">
            ${before !== null && html`<del><${Cell} column=${name} value=${before[name]} view=${view} /></del>${" "}`}
            <ins><${Cell} column=${name} value=${after[name]} view=${view} /></ins>
          </dd>`
    )}
  </dl>`
}
const parsed = (text) => {
  try {
    return parseJson(text)
  } catch {
    return text
  }
}
const Event = ({ before, event, view }) => {
  const [isOpen, setOpen] = useState(false)
  const {
    calls,
    certain,
    dead_letter: letter,
    duplicate_of: original,
    error,
    key,
    lookups,
    outcome,
    partition,
    position,
    topic,
    trace_id: trace
  } = event
  return html`<li class="event">
    <div class="row spread">
      <span class="row"
        ><strong>${event.type ?? topic}</strong
        ><${Tag} kind=${kinds[outcome] ?? "quiet"}>${outcome.replaceAll("_", " ")}<//>
        ${!certain && html`<span class="quiet">by its key</span>`}
        ${calls.length > 0 && html`<span class="quiet">${calls.map(({ kind }) => kind).join(", ")}</span>`}</span
      >
      <${Time} at=${event.appended_at ?? event.event_time} />
    </div>
    <div class="row">
      <a href=${linkTo("events", { topic, at: `${partition}:${position}` })}>${topic} ${partition}:${position}</a>
      ${event.retried_by !== null && html`<span class="quiet">retried by position ${event.retried_by}</span>`}
      ${key !== null && html`<a href=${linkTo(["entity", key], { at: `${topic}/${partition}/${position}` })}><${Data} value=${key} /></a>`}
      ${letter && html`<a href=${linkTo(["dead-letters", String(letter.id)])}>dead letter ${letter.id}, ${letter.status}</a>`}
      ${original !== null && html`<span class="quiet">of position ${original}</span>`}
      <button type="button" class="small" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
        ${isOpen ? "Less" : "Its data"}
      </button>
    </div>
    ${error && html`<p>${error.error}: ${error.message}</p>`}
    <${Changes} before=${before} after=${event.row} view=${view} />
    ${
      isOpen &&
      html`<h4>Value</h4>
        <${Json} value=${parsed(event.value)} />
        ${
          Object.keys(lookups).length > 0 &&
          html`<h4>What it saw in lookups</h4>
            <${Json} value=${lookups} />`
        }
        ${
          calls.length > 0 &&
          html`<h4>What the handler asked for</h4>
            <${Json} value=${calls} />`
        }
        ${trace && html`<p class="quiet">trace <code>${trace}</code></p>`}`
    }
  </li>`
}

const Explanation = ({ found, onMore, view }) => {
  const gone = found.partitions.some((one) => one.gone !== null)
  return html`<section class="card">
    <div class="row spread">
      <h2>${found.projection}, build ${found.build}</h2>
      ${found.same === true && html`<${Tag} kind="good">a replay gives the same row<//>`}
      ${found.same === false && html`<${Tag} kind="bad">a replay gives another row<//>`}
      ${found.same === null && html`<${Tag}>not compared with a replay<//>`}
    </div>
    ${found.notes.map((note) => html`<p class="note-box" key=${note}>${note}</p>`)}
    <h3>The row</h3>
    <${Row} row=${found.stored} view=${view} />
    ${
      found.same === false &&
      html`<h3>What a replay gives</h3>
        <dl class="pairs">
          ${found.differences.map(
            ({ column, replayed, stored }) =>
              html`<dt key=${column}>${column}</dt>
                <dd>
                  <strong><${Cell} column=${column} value=${replayed} view=${view} /></strong>, and the database
                  has${" "}
                  <${Cell} column=${column} value=${stored} view=${view} />
                </dd>`
          )}
        </dl>
        <p class="quiet">
          The handler or a lookup changed since, or somebody changed the row by hand. A rebuild computes all rows again.
        </p>
        <p class="row"><a href=${linkTo(["versions", found.projection])}>Versions of ${found.projection}</a></p>`
    }
    <h3>Its events, the newest first</h3>
    ${
      found.events.length === 0
        ? html`<${Empty} title=${gone ? "The log no longer has its events" : "The log has no event for this key"} />`
        : html`<ol class="events long">
            ${found.events
              .map(
                (event, i) =>
                  html`<${Event}
                    key=${`${event.topic} ${event.partition} ${event.position} ${event.retried_by}`}
                    event=${event}
                    before=${i === 0 ? (found.omitted > 0 ? event.row : null) : found.events[i - 1].row}
                    view=${view}
                  />`
              )
              .toReversed()}
          </ol>`
    }
    ${
      found.omitted > 0 &&
      html`<div class="row">
        <span class="quiet"
          >${counted(found.omitted, "earlier event")} ${found.omitted === 1 ? "is" : "are"} not shown.</span
        >
        ${onMore && html`<button type="button" onClick=${onMore}>Show up to ${number(limits.most)}</button>`}
      </div>`
    }
  </section>`
}

const Running = ({ body, onMore, view }) => {
  const [state, setState] = useState({})
  const credential = useCredential()
  const lack = useLack()("operate")
  useEffect(() => {
    if (lack) return setState({ error: lack })
    let isGone = false
    setState(({ found }) => ({ found }))
    const set = (next) => !isGone && setState((old) => ({ ...old, ...next }))
    runJob("/v1/operations/explain", body, ({ progress }) => set({ progress }), {
      kind: "explain",
      subject: body.table
    }).then(
      (found) => set({ found }),
      (error) => set({ error })
    )
    return () => (isGone = true)
  }, [credential, lack?.message])
  const { error, found, progress } = state
  if (error?.status === 403)
    return html`<p class="note-box">
        An explanation replays the log, which needs a credential with the scope operate and without a tenant.
      </p>
      <${Problem} error=${error} />`
  return html`<${Problem} error=${error} />${
      found === undefined &&
      error === undefined &&
      html`<p class="quiet" role="status">
        ${progress?.total ? `${progress.projection} is replayed: ${number(progress.replayed)} of ${number(progress.total)} records…` : "The log is searched…"}
      </p>`
    }
    ${found?.map((one) => html`<${Explanation} key=${one.projection} found=${one} view=${view} onMore=${onMore} />`)}`
}

/** The key of a request: the value of one column, or an object of all. */
const keyOf = (view, query) =>
  view.key.length === 1 ? query[view.key[0]] : Object.fromEntries(view.key.map((name) => [name, query[name]]))

const Form = ({ query, views }) => {
  const view = views.find(({ name }) => name === query.table) ?? views[0]
  const [texts, setTexts] = useState(query)
  useEffect(() => setTexts(query), [JSON.stringify(query)])
  const submit = (event) => {
    event.preventDefault()
    go(linkTo("explain", { table: view.name, ...Object.fromEntries(view.key.map((name) => [name, texts[name]])) }))
  }
  const isAsked = view.name === query.table && view.key.every((name) => query[name] !== undefined)
  const key = keyOf(view, query)
  const limit = query.limit === undefined ? limits.usual : Math.min(limits.most, Number(query.limit) || limits.usual)
  const more = () => go(linkTo("explain", { ...query, limit: String(limits.most) }), { replace: true })
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
    ${
      isAsked
        ? html`<p class="row">
              <a href=${linkTo(["tables", view.name], Object.fromEntries(view.key.map((name) => [name, query[name]])))}
                >The row in its table</a
              >
              ${view.key.slice(0, 1).map((name) => html`<a key=${name} href=${linkTo(["entity", query[name]])}>Everything of <${Data} value=${query[name]} most=${60} /></a>`)}
            </p>
            <${Running}
              key=${JSON.stringify(query)}
              body=${{ table: view.name, key, limit }}
              view=${view}
              onMore=${limit < limits.most ? more : undefined}
            />
            <${Command}
              text=${`npx millrace explain ${view.name} ${shellWord(typeof key === "string" ? key : JSON.stringify(key))}${limit === limits.usual ? "" : ` --limit ${limit}`}`}
            />`
        : html`<${Empty} title="No row is chosen">
            <p>Type the key of a row, or come from a row of the tables or of an entity by “Why?”.</p>
            <p class="row"><a href=${linkTo(["tables", view.name])}>Rows of ${view.name}</a></p>
          <//>`
    }`
}

export default ({ query }) => {
  const list = useGet("/v1/views")
  return html`<header class="head"><h1>Explain</h1></header>
    <p class="lead">
      Why a row is as it is: the events that made it, from the log, what each changed, and what a replay of them gives.
    </p>
    <${Loaded} of=${list}>
      ${({ views }) => {
        const written = views.filter(({ key }) => key.length > 0)
        return written.length === 0
          ? html`<${Empty} title="No table is written by a projection"
              ><p>Only rows that a projection writes can be explained: name a table in its <code>writes</code>.</p><//
            >`
          : query.table !== undefined && !written.some(({ name }) => name === query.table)
            ? html`<${NoSuch}
                noun=${views.some(({ name }) => name === query.table) ? "projection that writes" : "table"}
                name=${query.table}
                links=${written.map(({ name }) => ({ name, href: linkTo("explain", { table: name }) }))}
              />`
            : html`<${Form} key=${query.table} views=${written} query=${query} />`
      }}
    <//>`
}
