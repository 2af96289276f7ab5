// Dead letters: by error with root causes first, one with its payload and trace, and what can be decided about them.
import { curlOf, useGet, withQuery } from "../lib/api.js"
import { counted, number, shortened } from "../lib/format.js"
import {
  base,
  bodyOf,
  commandOf,
  decide,
  doneText,
  filterOf,
  find,
  flagsOf,
  openStatuses as open
} from "../lib/dead-letters.js"
import { html, useEffect, useState } from "../lib/html.js"
import { parseJson } from "../lib/json.js"
import { go, linkTo } from "../lib/router.js"
import { KeyLink } from "../parts/record.js"
import { Action, Command, Data, Empty, Field, Json, Loaded, Table, Tag, Time } from "../parts/common.js"

const statuses = { parked: "bad", skipped: "warn", retrying: "warn", retried: "good", discarded: "quiet" }
const linkOf = (id) => linkTo(["dead-letters", String(id)])
/** From how many on a discard asks for its word. */
const many = 20

const Ids = ({ ids }) =>
  html`<details>
    <summary>Which</summary>
    <p class="ids">
      ${ids.slice(0, 200).map((id) => html`<a key=${id} href=${linkOf(id)}>${id}</a> `)}
      ${ids.length > 200 && html`<span class="quiet">and ${number(ids.length - 200)} more</span>`}
    </p>
  </details>`
const foundText = ({ behind = 0, count, more = 0, retrying = 0 }) => {
  const one = count === 1
  const followers = `; ${number(behind)} more ${behind === 1 ? "waits" : "wait"} behind ${one ? "it" : "them"} for ${one ? "its key" : "their keys"}, and would follow`
  return (
    `It concerns ${counted(count, "dead letter")} that ${one ? "is" : "are"} open${behind > 0 ? followers : ""}.` +
    (retrying > 0
      ? ` ${number(retrying)} more ${retrying === 1 ? "is" : "are"} left out: being retried, or decided about meanwhile.`
      : "") +
    (more > 0 ? ` ${number(more)} others fit as well, and stay: do it again for these.` : "")
  )
}
const Found = ({ found }) => {
  const { ids, left_out: leftOut = [] } = found
  return html`<p>${foundText(found)}</p>
    ${leftOut.map(({ kind, reason }) => html`<p key=${kind} class="quiet">Those of the kind ${kind} are missing: ${reason}</p>`)}
    ${ids.length > 0 && html`<${Ids} ids=${ids} />`}`
}
const Done = ({ total, verb }) =>
  html`<p>${doneText(verb, total)}</p>
    ${
      total.failed.length > 0 &&
      html`<ul>
        ${total.failed.map(({ error, id, message }) => html`<li key=${id}><a href=${linkOf(id)}>${id}</a> failed again: ${error}: ${message}</li>`)}
      </ul>`
    }
    ${
      total.refused.length > 0 &&
      html`<ul>
        ${total.refused.map(({ id, reason }) => html`<li key=${id}><a href=${linkOf(id)}>${id}</a> stays: ${reason}</li>`)}
      </ul>`
    }
    ${total.notRun.map(
      ({ build, try: advice }) =>
        html`<p key=${build} class="note-box">
          No process runs ${build}: what was sent again waits in the log until one does. What to do: ${advice}
        </p>`
    )}
    ${total.failures.map((message) => html`<p key=${message} class="wrong">It ended before the last one: ${message}</p>`)}`

/** A decision about the dead letters that `body` selects, as the routes take it. `count`: about how many they are. */
const Decision = ({ body, count, isLive, label, onDone, verb }) => {
  let found
  // the list may be older than what the dry run has found
  const countNow = () => found?.count ?? count
  const plan = async () => {
    found = await find(verb, body)
    if (found.count === 0)
      throw Object.assign(
        new Error(
          found.retrying > 0
            ? "all of them are being retried, or were decided about meanwhile"
            : "none of them is open any more"
        ),
        { advice: "close this, and look at the list again" }
      )
    return html`<${Found} found=${found} />`
  }
  const act = async (_, { isOpen, report, signal }) => {
    const { ids } = found
    const onPart = (total, sent) =>
      report(
        html`<progress max=${ids.length} value=${sent} aria-label="Progress"></progress>
          <p>${number(sent)} of ${number(ids.length)}. ${doneText(verb, total)}</p>`
      )
    try {
      const total = await decide(verb, ids, { isWatched: isOpen, onPart, signal })
      return html`${signal.aborted && html`<p>${total.sent < ids.length ? "Stopped; the others are as they were." : "Stopped looking; all were sent again."}</p>`}<${Done}
          total=${total}
          verb=${verb}
        />`
    } catch (error) {
      if (error.total?.decided > 0)
        error.done = html`<p>Before it failed:</p>
          <${Done} total=${error.total} verb=${verb} />`
      throw error
    }
  }
  return html`<${Action}
    label=${label ?? (verb === "retry" ? "Retry" : "Discard")}
    danger=${verb === "discard"}
    canStop
    confirm=${verb === "discard" && count >= many ? "discard" : undefined}
    describe=${
      (verb === "retry"
        ? "The events are processed again, in the order of their keys. What fails again stays a dead letter."
        : "They are never processed, also not by a rebuild. They are kept in the list, with who decided it. This cannot be taken back.") +
      (isLive ? " Other builds decide the same about theirs for the same events, as a replay of the log does." : "")
    }
    command=${() => commandOf(verb, body, countNow())}
    request=${() => curlOf("POST", `${base}/${verb}`, { body: JSON.stringify(countNow() > 1_000 ? { ...body, limit: countNow() } : body) })}
    plan=${plan}
    act=${act}
    onDone=${onDone}
  />`
}
const Decisions = (given) =>
  html`<${Decision} ...${given} verb="retry" label=${given.labels?.[0]} />
    <${Decision} ...${given} verb="discard" label=${given.labels?.[1]} />`

/** The filters, of the address. */
const Filters = ({ query }) => {
  const [texts, setTexts] = useState(query)
  const key = JSON.stringify(query)
  useEffect(() => setTexts(query), [key])
  const set = (name) => (event) => setTexts({ ...texts, [name]: event.target.value })
  const submit = (event) => {
    event.preventDefault()
    go(linkTo("dead-letters", { ...texts, after: "" }))
  }
  const input = (name, hint) =>
    html`<${Field} label=${name} hint=${hint}
      ><input name=${name} value=${texts[name] ?? ""} onInput=${set(name)}
    /><//>`
  const choice = (name, none, values) =>
    html`<${Field} label=${name}
      ><select name=${name} value=${texts[name] ?? ""} onChange=${set(name)}>
        <option value="">${none}</option>
        ${values.map((value) => html`<option key=${value} value=${value}>${value.includes(",") ? "all" : value}</option>`)}
      </select><//
    >`
  return html`<details class="card" open=${Object.keys(query).length > 0}>
    <summary>Filters</summary>
    <form class="row end" onSubmit=${submit}>
      ${choice("kind", "all", ["projection", "subscription", "relay", "bridge"])} ${input("projection")}
      ${query.build !== undefined && input("build")} ${input("topic")} ${input("key")} ${input("error")}
      ${input("since", "2 hours, or a date")}
      ${choice("status", "open ones", [...Object.keys(statuses), Object.keys(statuses).join(",")])}
      <button class="primary">Show</button>
      ${Object.keys(query).length > 0 && html`<a href=${linkTo("dead-letters")}>All errors</a>`}
    </form>
  </details>`
}

const Groups = () => {
  const groups = useGet(`${base}/errors`, { every: 5_000 })
  return html`<${Loaded} of=${groups}>
    ${({ groups: found, left_out: leftOut, partial }) =>
      found.length === 0
        ? html`<${Empty} title="No open dead letters">
            <p>
              An event that fails, after the retries of its projection, is kept here with its error until somebody
              decides.
            </p>
            <${Command} text=${`npx millrace dlq list --status ${open.join(",")}`} />
          <//>`
        : html`${leftOut.map(({ kind, reason }) => html`<div key=${kind} class="note-box" role="status">Those of the kind ${kind} are missing: ${reason}</div>`)}
          ${partial && html`<div class="note-box">There are more than were counted.</div>`}
          ${found.map((group) => html`<${Group} key=${`${group.failed_in} ${group.error}`} group=${group} reload=${groups.reload} />`)}`}
  <//>`
}
const Group = ({ group, reload }) => {
  const filter = filterOf(group)
  return html`<section class="card">
    <div class="row spread">
      <h2>
        <a href=${linkTo("dead-letters", filter)}>${group.error}</a> <span class="quiet">in ${group.failed_in}</span>
      </h2>
      <span
        >${group.waits ? html`<${Tag}>waits behind others<//>` : html`<${Tag} kind="bad">cause<//>`}${" "}
        ${counted(group.count, "dead letter")}, ${counted(group.keys, "key")}</span
      >
    </div>
    <p>${group.sample.message} <a href=${linkOf(group.sample.id)}>The newest</a></p>
    <p class="quiet">
      First <${Time} at=${group.first_failed_at} />, last <${Time} at=${group.last_failed_at} />${
        group.waiting > 0 && html`; ${number(group.waiting)} others wait behind them`
      }
    </p>
    ${group.waits && html`<p class="quiet">A retry begins with what they wait for.</p>`}
    <div class="row">
      <a href=${linkTo("dead-letters", filter)}>Show them</a>
      <${Decisions} body=${bodyOf(filter)} count=${group.count} isLive=${group.live} onDone=${reload} />
    </div>
  </section>`
}

/** A filter in words. */
const titleOf = ({ error, kind, status, ...rest }) => {
  const parts = Object.entries(rest).map(([name, value]) =>
    name === "since" ? `since ${value}` : `${name} ${shortened(value, 60)}`
  )
  const states = status === undefined ? "Open" : status.includes(",") ? "All" : status
  const what = `${states[0].toUpperCase()}${states.slice(1)} dead letters${kind === undefined ? "" : ` of a ${kind}`}`
  return [what, ...(error === undefined ? [] : [`error ${shortened(error, 60)}`]), ...parts].join(", ")
}
const List = ({ query }) => {
  const { after, ...filter } = query
  const page = useGet(withQuery(base, { ...query, limit: "50" }), { every: after === undefined ? 5_000 : undefined })
  const groups = useGet(withQuery(`${base}/errors`, filter))
  const [selected, setSelected] = useState([])
  const { status = open.join(",") } = filter
  const isOpen = status.split(",").some((one) => open.includes(one))
  const reload = () => (setSelected([]), page.reload(), groups.reload())
  const total = groups.data?.groups.reduce((sum, { count }) => sum + count, 0)
  return html`<section class="card">
    <div class="row spread">
      <h2>${titleOf(filter)}</h2>
      <span class="quiet"
        >${total !== undefined && `${groups.data.partial ? "more than " : ""}${counted(total, "dead letter")}`}</span
      >
    </div>
    <${Loaded} of=${page}>
      ${({ dead_letters: found, next }) =>
        html`${
            found.length === 0
              ? html`<${Empty} title="No dead letter fits"><a href=${linkTo("dead-letters")}>All errors</a><//>`
              : html`<${Rows} found=${found} selected=${selected} setSelected=${setSelected} />`
          }
          <div class="row">
            ${after && html`<button type="button" onClick=${() => history.back()}>Back</button> <a href=${linkTo("dead-letters", filter)}>First page</a>`}
            ${next && html`<a href=${linkTo("dead-letters", { ...query, after: next })}>Next 50</a>`}
          </div>`}
    <//>
    ${
      isOpen &&
      html`<div class="row">
        ${
          selected.length > 0
            ? html`<${Decisions}
                body=${{ ids: selected }}
                count=${selected.length}
                labels=${[`Retry the ${number(selected.length)} chosen`, `Discard the ${number(selected.length)} chosen`]}
                onDone=${reload}
              />`
            : total > 0 &&
              html`<${Decisions}
                body=${bodyOf(filter)}
                count=${total}
                labels=${["Retry all that fit", "Discard all that fit"]}
                onDone=${reload}
              />`
        }
      </div>`
    }
    <${Command} text=${`npx millrace dlq list ${flagsOf({ status, ...filter })}`} />
  </section>`
}
const isKey = (key) => key !== null && key !== undefined && key !== ""
const Rows = ({ found, selected, setSelected }) => {
  const ids = found.filter(({ status }) => open.includes(status)).map(({ id }) => id)
  const isAll = ids.length > 0 && ids.every((id) => selected.includes(id))
  const others = selected.filter((id) => !ids.includes(id))
  return html`<${Table}
    caption="Dead letters"
    rows=${found}
    keyOf=${({ id, kind }) => `${kind} ${id}`}
    columns=${[
      {
        name: "chosen",
        label: html`<input
          type="checkbox"
          aria-label="Choose all of this page"
          checked=${isAll}
          onChange=${() => setSelected(isAll ? others : [...others, ...ids])}
        />`,
        cell: ({ id, status }) =>
          open.includes(status) &&
          html`<input
            type="checkbox"
            aria-label=${`Choose ${id}`}
            checked=${selected.includes(id)}
            onChange=${() => setSelected(selected.includes(id) ? selected.filter((one) => one !== id) : [...selected, id])}
          />`
      },
      { name: "id", cell: ({ id }) => html`<a href=${linkOf(id)}>${id}</a>` },
      { name: "status", cell: ({ status }) => html`<${Tag} kind=${statuses[status]}>${status}<//>` },
      {
        name: "key",
        cell: ({ key }) =>
          isKey(key) ? html`<${KeyLink} value=${key} most=${32} />` : html`<span class="quiet">none</span>`
      },
      { name: "error", cell: ({ error, message }) => html`<strong>${error}</strong> ${shortened(message, 160)}` },
      { name: "attempts", numeric: true },
      { name: "failed_at", label: "failed", cell: ({ failed_at: at }) => html`<${Time} at=${at} />` }
    ]}
  />`
}

/** A payload: as it is, and over several lines if it is JSON. */
const Payload = ({ base64, value }) => {
  const [isRaw, setRaw] = useState(false)
  let json
  try {
    json = typeof value === "string" ? parseJson(value) : value
  } catch {
    json = undefined
  }
  const isJson = typeof json === "object" && json !== null
  return html`<div class="row spread">
      <h3>Payload</h3>
      ${isJson && html`<button type="button" class="small" aria-pressed=${isRaw} onClick=${() => setRaw(!isRaw)}>${isRaw ? "Over several lines" : "As it was read"}</button>`}
    </div>
    ${value === null || value === undefined ? html`<p class="quiet">It has no value: it deletes its key.</p>` : html`<${Json} value=${isJson && !isRaw ? json : String(value)} />`}
    ${base64 && html`<p class="quiet">These bytes are no text; in base64: <code>${base64}</code></p>`}`
}
const shownApart = new Set([
  "headers",
  "properties",
  "message",
  "value",
  "value_base64",
  "error",
  "envelope",
  "id",
  "kind",
  "status",
  "thrown_at"
])
const One = ({ id }) => {
  const found = useGet(`${base}/${encodeURIComponent(id)}`, { every: 5_000 })
  return html`<${Loaded} of=${found}>
    ${({ dead_letter: one }) => {
      const isOpen = open.includes(one.status)
      const shown = Object.entries(one).filter(([name, value]) => !shownApart.has(name) && value !== null)
      return html`<section class="card">
        <div class="row spread">
          <h2>${one.error}</h2>
          <span><${Tag} kind=${statuses[one.status]}>${one.status}<//></span>
        </div>
        <p>${one.message}</p>
        ${one.thrown_at && html`<p>Thrown at <code>${one.thrown_at}</code></p>`}
        ${one.error === "EarlierParked" && html`<p class="note-box">It waits behind an earlier one of its key: <a href=${linkTo("dead-letters", { projection: one.projection, key: one.key })}>all of this key</a>.</p>`}
        <div class="row">
          ${isOpen && html`<${Decisions} body=${{ ids: [one.id] }} count=${1} isLive=${one.live} onDone=${found.reload} />`}
          ${one.kind === "projection" && html`<a href=${linkTo("events", { topic: one.topic, at: `${one.partition}:${one.position}` })}>Its record</a>`}
          ${one.key !== null && html`<a href=${linkTo("dead-letters", { kind: one.kind, key: one.key })}>Others of its key</a>`}
          ${isKey(one.key) && html`<a href=${linkTo(["entity", one.key])}>Everything of <${Data} value=${one.key} most=${60} /></a>`}
          ${one.projection && html`<a href=${linkTo(["versions", one.projection])}>${one.projection}</a>`}
        </div>
        <dl class="pairs">
          ${shown.map(
            ([name, value]) =>
              html`<dt key=${name}>${name.replaceAll("_", " ")}</dt>
                <dd>
                  ${/_(at|time)$/.test(name) ? html`<${Time} at=${value} />` : typeof value === "object" ? JSON.stringify(value) : String(value)}
                </dd>`
          )}
        </dl>
        <${Payload} value=${one.value} base64=${one.value_base64} />
        ${Object.entries({ Headers: one.headers, Properties: one.properties }).map(
          ([title, value]) =>
            value &&
            Object.keys(value).length > 0 &&
            html`<h3 key=${title}>${title}</h3>
              <${Json} value=${value} />`
        )}
        <${Command} text=${commandOf("show", { ids: [one.id] })} />
      </section>`
    }}
  <//>`
}

export default ({ path: [id], query }) =>
  html`<header class="head">
      <h1>${id === undefined ? "Dead letters" : html`<a href=${linkTo("dead-letters")}>Dead letters</a> / ${id}`}</h1>
    </header>
    ${
      id === undefined &&
      html`<p class="lead">
          What could not be processed or delivered, by error. Those that others wait for come first: fix the cause, then
          retry.
        </p>
        <${Filters} query=${query} />`
    }
    ${id !== undefined ? html`<${One} key=${id} id=${id} />` : Object.keys(query).length > 0 ? html`<${List} key=${JSON.stringify({ ...query, after: "" })} query=${query} />` : html`<${Groups} />`}`
