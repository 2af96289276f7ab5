// Windows: the columns of a window as lines over time, for one key or several, and the same as a table.
import { curlOf, useGet, withQuery } from "../lib/api.js"
import { counted, dataNumber, dataText, duration, visible, zone } from "../lib/format.js"
import { html, useState } from "../lib/html.js"
import { useLack } from "../lib/may.js"
import { go, linkTo } from "../lib/router.js"
import { linesOf, stateOf } from "../lib/spans.js"
import { isNumber } from "../lib/types.js"
import { Chart } from "../parts/chart.js"
import { Command, Empty, Field, Loaded, NoSuch, Problem, Table, Tag, Time, Value, Withheld } from "../parts/common.js"

/** How many windows of a key are shown, how many keys, how many of these at first, and how many rows the table has. */
const most = { windows: 200, keys: 5, first: 3, rows: 100 }

/** The columns of a window by what they are. */
const partsOf = ({ columns, key }) => {
  const start = key.find((name) => name === "window_start")
  const size = key.find((name) => name === "window_size")
  return {
    start,
    size,
    keys: key.filter((name) => name !== start && name !== size),
    values: columns.filter(({ name, type }) => isNumber(type) && !key.includes(name)).map(({ name }) => name)
  }
}
const textOf = (key) => key.map((one) => visible(dataText(String(one)))).join(" · ")
/** The keys in the address, as `[["N1"],["N2"]]`; undefined if they cannot be read. */
const keysIn = (text, width) => {
  try {
    const keys = JSON.parse(text ?? "")
    const isKey = (key) => Array.isArray(key) && key.length === width
    return Array.isArray(keys) && keys.every(isKey) ? keys.slice(0, most.keys) : undefined
  } catch {
    return undefined
  }
}

/** The stream times of the partitions whose build writes the window; undefined for a credential that may not see them. */
const useStreamTimes = ({ written_by: by }) => {
  const lack = useLack()("operate")
  const status = useGet(lack ? undefined : "/v1/operations/status", { every: 3_000 })
  return status.data?.projections
    .filter(
      ({ mode, name, removed, stream_time: time }) =>
        by.includes(name) && mode !== "follower" && !removed && time !== null
    )
    .map(({ stream_time: time }) => time)
}

const Keys = ({ chosen, found, keys, onKeys }) => {
  const [texts, setTexts] = useState(keys.map(() => ""))
  const isChosen = (key) => chosen.some((one) => textOf(one) === textOf(key))
  const toggle = (key) =>
    onKeys(isChosen(key) ? chosen.filter((one) => textOf(one) !== textOf(key)) : [...chosen, key].slice(-most.keys))
  const add = (event) => {
    event.preventDefault()
    if (!isChosen(texts)) toggle(texts)
    setTexts(keys.map(() => ""))
  }
  const offered = [...chosen, ...found.filter((key) => !isChosen(key))].slice(0, 12)
  return html`<fieldset class="keys">
      <legend>${keys.join(", ")} (up to ${most.keys})</legend>
      ${offered.map(
        (key) =>
          html`<label key=${textOf(key)} class="check"
            ><input type="checkbox" checked=${isChosen(key)} onChange=${() => toggle(key)} /><span class="data"
              >${textOf(key)}</span
            ></label
          >`
      )}
    </fieldset>
    <form class="row end" onSubmit=${add}>
      ${keys.map(
        (name, i) =>
          html`<${Field} key=${name} label=${`Another ${name}`}
            ><input
              value=${texts[i]}
              required
              onInput=${(event) => setTexts(texts.map((text, j) => (j === i ? event.target.value : text)))}
          /><//>`
      )}
      <button>Add it</button>
    </form>`
}

const stateTags = {
  open: ["warn", "open"],
  closed: ["good", "closed"],
  closing: ["quiet", "closed in some partitions"]
}
const State = ({ state }) => {
  const [kind, text] = stateTags[state] ?? ["quiet", "–"]
  return html`<${Tag} kind=${kind}>${text}<//>`
}

/** What is known of the windows in words: their length, where they begin, and what is still open. */
const Note = ({ of: { everyMs, graceMs, isCalendar, open, size, sizeMs, timeZone } }) =>
  html`<p class="quiet">
    ${
      isCalendar
        ? `Each is a ${size} in ${timeZone ?? "UTC"}.`
        : `Each is ${duration(sizeMs)} long${everyMs === sizeMs ? "" : `, and one begins every ${duration(everyMs)}`}.`
    }
    ${" "}Times are in ${zone()}. Events that are late count for ${duration(graceMs)} more. A key without events has no
    window: the line has a gap
    there.${open > 0 && ` ${counted(open, "window")} ${open === 1 ? "is" : "are"} still open, so ${open === 1 ? "its numbers" : "their numbers"} change.`}
  </p>`

const Charts = ({ chosen, groups, parts, spans, stateOfRow, view }) => {
  const { start, values } = parts
  const rows = groups.flatMap((some) => some).toSorted((a, b) => Date.parse(b[start]) - Date.parse(a[start]))
  return html`<div class="columns">
      ${values.map((column) => {
        const lines = linesOf(groups, { column, start, everyMs: spans.everyMs })
        const labels = chosen.map(textOf)
        const last = lines.values.map(
          (some, i) => `${labels[i] || column}: ${dataNumber(some.findLast((one) => one !== null))}`
        )
        return html`<section class="card" key=${column}>
          <h2>${column}</h2>
          <${Chart}
            times=${lines.times}
            series=${lines.values.map((some, i) => ({ label: labels[i] || column, values: some }))}
            summary=${`${column} of ${view.name} over ${counted(lines.times.length, "window")}; the last of ${last.join(", ")}. The table below has all numbers.`}
            height=${160}
            format=${dataNumber}
            hasPoints
          />
          ${lines.times.length === 1 && html`<p class="quiet">There is one window so far: the line begins with the second.</p>`}
        </section>`
      })}
    </div>
    <section class="card">
      <h2>The same as a table</h2>
      <${Table}
        caption=${`The newest windows of ${view.name}`}
        rows=${rows.slice(0, most.rows)}
        keyOf=${(row) => JSON.stringify(view.key.map((name) => row[name]))}
        columns=${[
          { name: start, label: "starts", cell: (row) => html`<${Time} at=${row[start]} />` },
          ...parts.keys.map((name) => ({ name })),
          ...values.map((name) => ({ name, numeric: true, cell: (row) => html`<${Value} value=${row[name]} />` })),
          { name: "state", cell: (row) => html`<${State} state=${stateOfRow(row)} />` }
        ]}
      />
    </section>`
}

/** The keys that are shown, those that can be chosen, and the pages of rows of the first. */
const useRows = (view, { keys, size, start }, { chosenSize, given }) => {
  const path = `/v1/views/${encodeURIComponent(view.name)}`
  const ofSize = size === undefined ? {} : { [size]: chosenSize }
  const sample = useGet(withQuery(path, { ...ofSize, order: `${start}.desc`, limit: 200 }), { every: 15_000 })
  const newest = (sample.data?.rows ?? []).map((row) => keys.map((name) => row[name]))
  // those with the most windows first
  const found = [...Map.groupBy(newest, textOf).values()].toSorted((a, b) => b.length - a.length).map(([key]) => key)
  const chosen = keysIn(given, keys.length) ?? found.slice(0, most.first)
  const pathOf = (key) =>
    withQuery(path, {
      ...ofSize,
      ...Object.fromEntries(keys.map((name, i) => [name, [key[i]]])),
      order: `${start}.desc`,
      limit: most.windows
    })
  // as many requests on each rendering, whatever is chosen
  const pages = Array.from({ length: most.keys }, (_, i) =>
    useGet(chosen[i] === undefined ? undefined : pathOf(chosen[i]), { every: 2_000 })
  ).slice(0, chosen.length)
  return { chosen, found, pages, sample, request: chosen[0] && pathOf(chosen[0]) }
}

const Lines = ({ query, view }) => {
  const parts = partsOf(view)
  const { keys, start } = parts
  const sizes = view.window?.sizes ?? []
  const chosenSize = query.size ?? sizes.at(-1)?.size
  const { chosen, found, pages, request, sample } = useRows(view, parts, { chosenSize, given: query.keys })
  const times = useStreamTimes(view)
  const set = (changes) => go(linkTo(["windows", view.name], { ...query, ...changes }), { replace: true })
  const own = sizes.find((one) => one.size === chosenSize)
  const spans = {
    size: chosenSize,
    sizeMs: own?.ms,
    everyMs: own?.every_ms,
    graceMs: view.window?.grace_ms ?? 0,
    timeZone: view.window?.time_zone,
    isCalendar: own !== undefined && own.ms === null
  }
  const stateOfRow = (row) => stateOf(Date.parse(row[start]), { ...spans, streamTimes: times })
  const groups = pages.map(({ data }) => data?.rows ?? [])
  const open = groups.flat().filter((row) => stateOfRow(row) === "open").length
  return html`<section class="card">
      ${
        sizes.length > 1 &&
        html`<div class="row" role="group" aria-label="Size">
          <span class="quiet">Size</span>
          ${sizes.map((one) => html`<button key=${one.size} type="button" class="small" aria-pressed=${one.size === chosenSize} onClick=${() => set({ size: one.size })}>${one.size}</button>`)}
        </div>`
      }
      <${Keys}
        key=${view.name}
        keys=${keys}
        found=${found}
        chosen=${chosen}
        onKeys=${(next) => set({ keys: JSON.stringify(next) })}
      />
      <${Note} of=${{ ...spans, open }} />
    </section>
    <${Problem} error=${pages.find(({ error }) => error?.status > 0)?.error} />
    <${Loaded} of=${sample}>
      ${({ rows }) =>
        rows.length === 0
          ? html`<${Empty} title="No window yet"
              ><p>A window has a row once an event falls into it. <a href=${linkTo("send")}>Send an event</a>.</p><//
            >`
          : chosen.length === 0
            ? html`<${Empty} title="No key is chosen"><p>Choose one above.</p><//>`
            : html`<${Charts}
                  chosen=${chosen}
                  groups=${groups}
                  parts=${parts}
                  spans=${spans}
                  stateOfRow=${stateOfRow}
                  view=${view}
                />
                <${Command} label="request" text=${curlOf("GET", request)} />`}
    <//>`
}

export default ({ path: [inPath], query: { window: inQuery, ...query } }) => {
  const name = inPath ?? inQuery
  const list = useGet("/v1/views")
  return html`<header class="head"><h1>Windows</h1></header>
    <${Loaded} of=${list}>
      ${({ views, withheld }) => {
        const windows = views.filter(({ kind }) => kind === "window")
        const view = name === undefined ? windows[0] : windows.find((one) => one.name === name)
        if (windows.length === 0 && withheld?.window > 0)
          return html`<${Withheld} count=${withheld.window} noun="window" />`
        if (view === undefined && name !== undefined)
          return html`<${NoSuch}
            noun="window"
            name=${name}
            links=${windows.map((one) => ({ name: one.name, href: linkTo(["windows", one.name]) }))}
          />`
        if (view === undefined)
          return html`<${Empty} title="The application has no windows"
            ><p>A window adds up the events of a key over a time: <code>Window.tumbling</code>.</p><//
          >`
        return html`<div class="row end">
            <${Field} label="Window"
              ><select value=${view.name} onChange=${(event) => go(linkTo(["windows", event.target.value]))}>
                ${windows.map((one) => html`<option key=${one.name}>${one.name}</option>`)}
              </select><//
            >
          </div>
          ${
            partsOf(view).start === undefined
              ? html`<${Empty} title=${`${view.name} adds up all time`}
                  ><p>It has one row for each key: <a href=${linkTo(["tables", view.name])}>see its table</a>.</p><//
                >`
              : html`<${Lines} key=${view.name} view=${view} query=${query} />`
          }`
      }}
    <//>`
}
