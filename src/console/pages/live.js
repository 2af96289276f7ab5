// Any topic as its records come, filtered by the server; pausing keeps what is shown, and counts what comes meanwhile.
import { useGet, withQuery } from "../lib/api.js"
import { counted, shellWord } from "../lib/format.js"
import { html, useEffect, useRef, useState } from "../lib/html.js"
import { go, linkTo } from "../lib/router.js"
import { follow } from "../lib/stream.js"
import { Command, Empty, Field, Json, Loaded, Problem, Tag, Time } from "../parts/common.js"

/** How many records are shown, the newest first. */
const shown = 200

const Record = ({ record: { at, value } }) => {
  const [isOpen, setOpen] = useState(false)
  return html`<tr class="fresh">
      <td>
        <button type="button" class="small" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
          ${isOpen ? "Less" : "More"}
        </button>
      </td>
      <td><${Time} at=${at} /></td>
      <td><code>${JSON.stringify(value)}</code></td>
    </tr>
    ${
      isOpen &&
      html`<tr>
        <td colspan="3"><${Json} value=${value} /></td>
      </tr>`
    }`
}

const Following = ({ isPaused, query, topic }) => {
  const [state, setState] = useState({ state: "connecting" })
  const [records, setRecords] = useState([])
  const held = useRef([])
  const paused = useRef(isPaused)
  const [missed, setMissed] = useState(0)
  const path = withQuery(`/v1/topics/${encodeURIComponent(topic)}/stream`, query)
  const take = (found) => setRecords((old) => [...found.toReversed(), ...old].slice(0, shown))
  useEffect(() => {
    setRecords([])
    held.current = []
    return follow(path, {
      onState: setState,
      onEvents: (events) => {
        const found = events
          .filter(({ event }) => event !== "end")
          .map(({ data, id }) => ({ id, at: Date.now(), value: data }))
        if (!paused.current) return take(found)
        held.current = [...held.current, ...found].slice(-shown)
        setMissed((n) => n + found.length)
      }
    })
  }, [path])
  useEffect(() => {
    paused.current = isPaused
    if (isPaused) return
    take(held.current)
    held.current = []
    setMissed(0)
  }, [isPaused])
  const kinds = { open: "good", connecting: "quiet", waiting: "warn", refused: "bad" }
  const texts = {
    open: "following",
    connecting: "connecting",
    waiting: "the connection is lost; it is opened again",
    refused: "refused"
  }
  return html`<p class="row" role="status">
      <${Tag} kind=${kinds[state.state]}>${texts[state.state]}<//>
      ${isPaused && html`<span class="quiet">paused; ${counted(missed, "record")} came meanwhile</span>`}
    </p>
    <${Problem} error=${state.error} />
    ${
      records.length === 0
        ? html`<${Empty} title="No record yet"
            ><p>Records appear here as they are appended.</p>
            <${Command} text=${`npx millrace tail ${shellWord(topic)} --from earliest`}
          /><//>`
        : html`<div class="scroll" tabindex="0" role="region" aria-label="Records">
            <table>
              <caption class="sr">
                The newest records of ${topic}
              </caption>
              <thead>
                <tr>
                  <th scope="col"><span class="sr">more</span></th>
                  <th scope="col">came</th>
                  <th scope="col">value</th>
                </tr>
              </thead>
              <tbody>
                ${records.map((record) => html`<${Record} key=${record.id} record=${record} />`)}
              </tbody>
            </table>
          </div>`
    }`
}

export default ({ query }) => {
  const topics = useGet("/v1/topics")
  const [isPaused, setPaused] = useState(false)
  return html`<header class="head"><h1>Live</h1></header>
    <p class="lead">The records of a topic as they come, the newest first.</p>
    <${Loaded} of=${topics}>
      ${({ topics: all }) => {
        const names = all.map(({ name }) => name).filter((name) => !name.startsWith("millrace-"))
        if (names.length === 0)
          return html`<${Empty} title="The application has no topics"
            ><p>A projection reads one, and an aggregate has one: declare it in the application.</p><//
          >`
        const topic = query.topic ?? (names.includes("alerts.v1") ? "alerts.v1" : names[0])
        const set = (changes) => go(linkTo("live", { topic, ...query, ...changes }), { replace: true })
        const { from, key, tenant } = query
        const flags = [
          key && `--key ${shellWord(key)}`,
          tenant && `--tenant ${shellWord(tenant)}`,
          from && `--from ${shellWord(from)}`
        ]
        return html`<div class="row end">
            <${Field} label="Topic"
              ><select value=${topic} onChange=${(event) => set({ topic: event.target.value })}>
                ${names.map((name) => html`<option key=${name}>${name}</option>`)}
              </select><//
            >
            <${Field} label="Key"
              ><input value=${key ?? ""} onChange=${(event) => set({ key: event.target.value })}
            /><//>
            <${Field} label="Tenant"
              ><input value=${tenant ?? ""} onChange=${(event) => set({ tenant: event.target.value })}
            /><//>
            <${Field} label="From"
              ><select value=${from ?? "latest"} onChange=${(event) => set({ from: event.target.value })}>
                <option>latest</option>
                <option>earliest</option>
              </select><//
            >
            <button type="button" aria-pressed=${isPaused} onClick=${() => setPaused(!isPaused)}>
              ${isPaused ? "Go on" : "Pause"}
            </button>
          </div>
          <section class="card">
            <${Following}
              key=${JSON.stringify([topic, query])}
              topic=${topic}
              query=${{ key, tenant, from }}
              isPaused=${isPaused}
            />
          </section>
          <${Command} text=${["npx millrace tail", shellWord(topic), ...flags.filter(Boolean)].join(" ")} />`
      }}
    <//>`
}
