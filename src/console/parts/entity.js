// The parts of the page of a key: an event, a row with what an event changed of it, a table's rows, and the state of an aggregate.
import { get, withQuery } from "../lib/api.js"
import { counted, number } from "../lib/format.js"
import { html, useEffect, useRef, useState } from "../lib/html.js"
import { same } from "../lib/json.js"
import { linkTo } from "../lib/router.js"
import { Data, Json, Problem, Tag, Time, FieldValue } from "./common.js"

/** How many rows of a table are shown at first. */
const shownRows = 6
const isThere = (value) => value !== null && value !== undefined

/** An event of the timeline, which the slider goes to by a click. */
export const TimelineEvent = ({ event, isSelected, ofKey, onSelect, outcome }) => {
  const [isOpen, setOpen] = useState(false)
  const { appended_at: at, headers = {}, key, partition, position, topic, type, value, version } = event
  const isOther = key !== undefined && key !== ofKey
  const place = [isThere(type) && topic, `${partition}:${position}`, version && `version ${version}`]
  return html`<li class=${`event ${isSelected ? "selected" : ""}`}>
    <button type="button" class="pick" aria-pressed=${isSelected} onClick=${onSelect}>
      <span class="row spread"><strong>${type ?? topic}</strong><${Time} at=${at} /></span>
      <span class="quiet">${place.filter(Boolean).join(" · ")}</span>
    </button>
    <div class="row">
      ${outcome && html`<${Tag} kind=${{ dead_letter: "bad", late: "warn" }[outcome] ?? "quiet"}>${outcome.replaceAll("_", " ")}<//>`}
      ${isOther && html`<span>of ${key === null ? "no key" : html`<a href=${linkTo(["entity", key])}><${Data} value=${key} /></a>`}</span>`}
      ${
        value !== undefined &&
        html`<button type="button" class="small" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
          ${isOpen ? "Hide data" : "Data"}
        </button>`
      }
      <a href=${linkTo("events", { topic, at: `${partition}:${position}` })}>Record</a>
    </div>
    ${
      isOpen &&
      html`<${Json} value=${value} />${
          Object.keys(headers).length > 0 &&
          html`<p class="quiet">Headers</p>
            <${Json} value=${headers} />`
        }`
    }
  </li>`
}

/** The values of an object; those that changed are marked, with what they were. `columns`: `{ name, type }`. */
const Marked = ({ before, columns, isMarked, value }) =>
  html`<dl class="pairs">
    ${columns.map(({ name, type }) => {
      const hasChanged = isMarked && !same(before?.[name], value[name])
      return html`<dt key=${name}>${name}</dt>
        <dd class=${hasChanged ? "mark" : ""}>
          ${
            hasChanged
              ? html`${before?.[name] !== undefined && html`<del><${FieldValue} name=${name} type=${type} value=${before[name]} /></del>${" "}`}
                  <ins><${FieldValue} name=${name} type=${type} value=${value[name]} /></ins>`
              : html`<${FieldValue} name=${name} type=${type} value=${value[name]} />`
          }
        </dd>`
    })}
  </dl>`

const RowState = ({ state: { before, isChanged, note, row, value, view } }) => {
  const keys = view?.key ?? Object.keys(row.key ?? {})
  const given = value ?? before ?? row.key ?? {}
  const columns = (view?.columns ?? Object.keys(given).map((name) => ({ name }))).filter(({ name }) => name in given)
  const key = row.key ?? value
  const typeOf = (name) => view?.columns.find((column) => column.name === name)?.type
  const isNew = isChanged && !isThere(before)
  const isDeleted = isChanged && !isThere(value)
  return html`<article class=${`state ${isChanged ? "changed" : ""}`}>
    <header class="row spread">
      <span class="row"
        >${keys.map((name) => html`<strong key=${name}><${FieldValue} name=${name} type=${typeOf(name)} value=${key[name]} /></strong>`)}
        ${isNew && html`<${Tag} kind="good">created<//>`} ${isDeleted && html`<${Tag} kind="bad">deleted<//>`}
        ${isChanged && !isNew && !isDeleted && html`<${Tag} kind="warn">changed<//>`}</span
      >
      ${
        keys.length > 0 &&
        html`<a
          href=${linkTo("explain", { table: view?.name ?? row.table, ...Object.fromEntries(keys.map((name) => [name, String(key[name])])) })}
          >Why?</a
        >`
      }
    </header>
    ${note && html`<p class="quiet">${note}</p>`}
    ${
      isDeleted
        ? html`<p class="quiet">The event deleted it.</p>`
        : html`<${Marked}
            columns=${columns.filter(({ name }) => !keys.includes(name))}
            value=${value}
            before=${before}
            isMarked=${isChanged && !isNew}
          />`
    }
  </article>`
}
/** The rows of one table or view after an event. */
export const TableStates = ({ table: { error, isCut, rows, title, view } }) => {
  const [isAll, setAll] = useState(false)
  const visible = isAll ? rows : rows.slice(0, shownRows)
  return html`<section class="card">
    <div class="row spread">
      <h2>${view === undefined ? title : html`<a href=${linkTo(["tables", view.name])}>${title}</a>`}</h2>
      <span class="quiet">${view?.kind ?? "table"}, ${counted(rows.length, "row")}${isCut ? " and more" : ""}</span>
    </div>
    <${Problem} error=${error} />
    ${visible.map((state) => html`<${RowState} key=${state.row.id} state=${state} />`)}
    ${
      rows.length > shownRows &&
      html`<button type="button" onClick=${() => setAll(!isAll)}>
        ${isAll ? "Fewer" : `All ${number(rows.length)} rows`}
      </button>`
    }
  </section>`
}

/** The state of an aggregate at a version, with the fields that its last event changed. */
export const AggregateState = ({ id, name, version, versions }) => {
  const states = useRef(new Map())
  const [, refresh] = useState(0)
  const [error, setError] = useState()
  useEffect(() => {
    let isGone = false
    const read = async (one) => {
      const path = `/v1/aggregates/${encodeURIComponent(name)}/${encodeURIComponent(id)}`
      states.current.set(one, (await get(withQuery(path, { version: String(one) }))).state)
      if (!isGone) refresh((n) => n + 1)
    }
    for (const one of [version, version - 1])
      if (one >= 1 && !states.current.has(one)) read(one).catch((problem) => !isGone && setError(problem))
    return () => (isGone = true)
  }, [version])
  const state = states.current.get(version)
  const before = states.current.get(version - 1)
  return html`<section class="card">
    <div class="row spread">
      <h2><a href=${linkTo(["aggregates", name, id])}>${name}</a></h2>
      <span class="quiet">aggregate, version ${version} of ${versions}</span>
    </div>
    <${Problem} error=${error} />
    ${version < 1 && html`<p class="quiet">It had no events yet.</p>`}
    ${version >= 1 && state === undefined && error === undefined && html`<p class="quiet" role="status">Loading…</p>`}
    ${
      version >= 1 &&
      state !== undefined &&
      (typeof state === "object" && state !== null
        ? html`<${Marked}
            columns=${Object.keys(state).map((field) => ({ name: field }))}
            value=${state}
            before=${before}
            isMarked=${version > 1 && before !== undefined}
          />`
        : html`<${Json} value=${state} />`)
    }
  </section>`
}
